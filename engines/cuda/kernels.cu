// A picture to the network's input, and labels onto the picture: each in one pass.
//
// Both follow the two sampling rules of pipeline/stages/geometry.py. Where numbers are
// floating-point, the order of operations is that of the source, and nvcc is told not to fuse any
// (-fmad=false): the same source compiled for the host gives the same bytes. Sizes are such that
// positions, products of two sides, fit into 32 bits.
//
// No thread waits for another and each writes bytes of its own, every byte of the output and none
// between its rows. So `paint` may write where it reads, if both have the same layout.

typedef unsigned char byte;

// The arguments, packed as engines/cuda/kernels.py packs them.

struct Picture {
    byte *first;  // luma, or RGB
    byte *u, *v;  // none in RGB
    int pitch, chroma_pitch;
    int chroma_step;  // bytes from sample to sample: 1 in planes, 2 where U and V alternate
};

struct Network {
    int height, width;
    int top, left, inner_height, inner_width;  // where the picture lies
    int fill[3];                               // around it, RGB
    int area;                                  // average, where both sides shrink
};

struct Matrix {
    int at[12];  // 3 rows of 4: R, G, B of Y, U, V, 1, in 1024ths; the last of each + 1 / 2
};

struct Labels {  // the part of the network's output that shows the picture
    const byte *at;
    int pitch, height, width;
    int smooth;  // enlarged in both directions
};

static_assert(sizeof(Picture) == 40 && sizeof(Network) == 40, "packed in kernels.py");
static_assert(sizeof(Matrix) == 48 && sizeof(Labels) == 24, "packed in kernels.py");

// Rule 1

// Its arithmetic is that of OpenCV's resize and transform, what they cut off included, so that
// networks get the same bytes in both lanes: a level more or less in each of three planes would be
// four after the matrix.

struct Pair {  // of samples: `first`, from -1 on, and the next
    int first;
    int weight;  // of the next, in 2048ths
};

__device__ inline int inside(int i, int count)
{
    return min(max(i, 0), count - 1);
}

__device__ inline int in_2048ths(float part)
{
    return (int)rintf(2048.0f * part);
}

__device__ inline Pair pair_at(int i, int in, int out)
{
    // The centre of pixel i lies at (i + 1 / 2) in / out - 1 / 2.
    float at = (float)((2 * i + 1) * in - out) / (float)(2 * out);
    float first = floorf(at);
    return {(int)first, in_2048ths(at - first)};
}

// INTER_AREA where a side is enlarged: each sample as wide as what it became, edges interpolated. In
// OpenCV's doubles, for the least of errors moves an edge by a sample.
__device__ inline Pair area_pair_at(int i, int in, int out)
{
    double larger = (double)out / in, smaller = 1.0 / larger;
    int first = (int)floor(i * smaller);
    float over = (float)((i + 1) - (first + 1) * larger);
    return {first, over <= 0.0f ? 0 : in_2048ths(over - floorf(over))};
}

__device__ inline int interpolated(const byte *plane, int pitch, int step, int height, int width,
                                   Pair row, Pair column)
{
    const byte *upper = plane + (long long)inside(row.first, height) * pitch;
    const byte *lower = plane + (long long)inside(row.first + 1, height) * pitch;
    int left = inside(column.first, width) * step, right = inside(column.first + 1, width) * step;
    int above = upper[left] * (2048 - column.weight) + upper[right] * column.weight;
    int below = lower[left] * (2048 - column.weight) + lower[right] * column.weight;
    above = (2048 - row.weight) * (above >> 4) >> 16;
    below = row.weight * (below >> 4) >> 16;
    return (above + below + 2) >> 2;
}

// The share of sample s, times `in`, in pixel i: what they have in common.
__device__ inline int overlap(int s, int i, int in, int out)
{
    return min((s + 1) * out, (i + 1) * in) - max(s * out, i * in);
}

__device__ inline int averaged(const byte *plane, int pitch, int step, int height, int width,
                               int y, int x, int out_height, int out_width)
{
    int top = y * height / out_height, bottom = ((y + 1) * height - 1) / out_height;
    int left = x * width / out_width, right = ((x + 1) * width - 1) / out_width;
    float sum = 0.0f;
    for (int r = top; r <= bottom; r++) {
        const byte *row = plane + (long long)r * pitch;
        int along = 0;
        for (int c = left; c <= right; c++)
            along += overlap(c, x, width, out_width) * row[c * step];
        sum += (float)along * (float)overlap(r, y, height, out_height);
    }
    return (int)rintf(sum / ((float)height * (float)width));
}

// Pixel (y, x) of a plane of samples `step` bytes apart, at another size.
__device__ inline int sampled(const byte *plane, int pitch, int step, int height, int width,
                              int y, int x, const Network &net)
{
    int rows = net.inner_height, columns = net.inner_width;
    // A mean of 2 x 2 is interpolated, for halves go up in it.
    bool area = net.area && !(height == 2 * rows && width == 2 * columns);
    if (area && height >= rows && width >= columns)
        return averaged(plane, pitch, step, height, width, y, x, rows, columns);
    Pair row = area ? area_pair_at(y, height, rows) : pair_at(y, height, rows);
    Pair column = area ? area_pair_at(x, width, columns) : pair_at(x, width, columns);
    return interpolated(plane, pitch, step, height, width, row, column);
}

// This thread's pixel of the network's input, or none: then `out` is null.
struct Pixel {
    byte *out;
    int y, x;     // in the picture as the network sees it
    bool inside;  // else it lies around the picture
};

__device__ inline Pixel pixel_of(byte *out, const Network &net)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= net.width || y >= net.height)
        return {nullptr, 0, 0, false};
    byte *at = out + 3 * ((long long)y * net.width + x);
    y -= net.top;
    x -= net.left;
    return {at, y, x, y >= 0 && x >= 0 && y < net.inner_height && x < net.inner_width};
}

extern "C" __global__ void resize_rgb(Picture in, int height, int width, byte *out, Network net)
{
    Pixel pixel = pixel_of(out, net);
    if (!pixel.out)
        return;
    for (int c = 0; c < 3; c++)
        pixel.out[c] = pixel.inside ? sampled(in.first + c, in.pitch, 3, height, width, pixel.y,
                                              pixel.x, net)
                                    : net.fill[c];
}

// Each plane is sampled by itself and rounded, then the colours are converted.
extern "C" __global__ void resize_planes(Picture in, int height, int width, byte *out, Network net,
                                         Matrix into_rgb)
{
    Pixel pixel = pixel_of(out, net);
    if (!pixel.out)
        return;
    if (!pixel.inside) {
        for (int c = 0; c < 3; c++)
            pixel.out[c] = net.fill[c];
        return;
    }
    int rows = height / 2, columns = width / 2;
    int luma = sampled(in.first, in.pitch, 1, height, width, pixel.y, pixel.x, net);
    int u = sampled(in.u, in.chroma_pitch, in.chroma_step, rows, columns, pixel.y, pixel.x, net);
    int v = sampled(in.v, in.chroma_pitch, in.chroma_step, rows, columns, pixel.y, pixel.x, net);
    for (int c = 0; c < 3; c++) {
        const int *m = into_rgb.at + 4 * c;
        int value = (m[0] * luma + m[1] * u + m[2] * v + m[3]) >> 10;
        pixel.out[c] = (byte)min(max(value, 0), 255);
    }
}

// Rule 2. Positions and weights are integers, so that no rounding decides between two classes.

struct Place {  // between sample `first` and the next, `part` / `whole` of the way
    int first, part, whole;
};

__device__ inline Place place(int i, int in, int out)
{
    int at = (2 * i + 1) * in - out;  // as in `pair_at`, times 2 out
    if (at <= 0)
        return {0, 0, 2 * out};
    int first = at / (2 * out);
    if (first >= in - 1)
        return {in - 1, 0, 2 * out};
    return {first, at - first * 2 * out, 2 * out};
}

struct Weights {
    unsigned at[4];  // of the samples from first - 1 on
};

// Linear interpolation between two samples, each [1 2 1] / 4 of its neighbours if `smooth`.
__device__ inline Weights weights(Place place, bool smooth)
{
    unsigned part = place.part, rest = place.whole - place.part;
    if (!smooth)
        return {{0, rest, part, 0}};
    return {{rest, rest + place.whole, part + place.whole, part}};
}

// The class whose mask is highest; of equal ones the lowest id. The weights' sums fit into 32 bits
// for pictures of less than 2^26 pixels.
__device__ inline int label_between(const Labels &labels, Place row, Place column)
{
    int ids[4][4];
    for (int r = 0; r < 4; r++) {
        const byte *line = labels.at + (long long)inside(row.first - 1 + r, labels.height) *
                                           labels.pitch;
        for (int c = 0; c < 4; c++)
            ids[r][c] = line[inside(column.first - 1 + c, labels.width)];
    }
    Weights down = weights(row, labels.smooth), along = weights(column, labels.smooth);
    unsigned highest = 0;
    int best = 0;
    for (int id = -1;;) {
        int next = 256;  // the lowest id above `id`
        for (int r = 0; r < 4; r++)
            for (int c = 0; c < 4; c++)
                if (ids[r][c] > id)
                    next = min(next, ids[r][c]);
        if (next == 256)
            return best;
        id = next;
        unsigned mask = 0;
        for (int r = 0; r < 4; r++) {
            unsigned sum = 0;
            for (int c = 0; c < 4; c++)
                sum += ids[r][c] == id ? along.at[c] : 0;
            mask += down.at[r] * sum;
        }
        if (mask > highest) {
            highest = mask;
            best = id;
        }
    }
}

__device__ inline int label_at(const Labels &labels, int y, int x, int height, int width)
{
    return label_between(labels, place(y, labels.height, height), place(x, labels.width, width));
}

// The one label that pixels (top to bottom, left to right) of the picture can have, both ends
// included; -1 if there may be several.
__device__ inline int only_label(const Labels &labels, int top, int bottom, int left, int right,
                                 int height, int width)
{
    int row = max(place(max(top, 0), labels.height, height).first - 1, 0);
    int column = max(place(max(left, 0), labels.width, width).first - 1, 0);
    int last_row = place(min(bottom, height - 1), labels.height, height).first + 2;
    int last_column = place(min(right, width - 1), labels.width, width).first + 2;
    last_row = min(last_row, labels.height - 1);
    last_column = min(last_column, labels.width - 1);
    int only = labels.at[(long long)row * labels.pitch + column];
    for (int r = row; r <= last_row; r++)
        for (int c = column; c <= last_column; c++)
            if (labels.at[(long long)r * labels.pitch + c] != only)
                return -1;
    return only;
}

// Whether another class is met within a window of `line` + 1 pixels; line is the lines' width.
__device__ inline bool on_line(const Labels &labels, int own, int y, int x, int height, int width,
                               int line)
{
    int top = y - (line + 1) / 2, left = x - (line + 1) / 2;
    for (int r = max(top, 0); r <= min(top + line, height - 1); r++)
        for (int c = max(left, 0); c <= min(left + line, width - 1); c++)
            if (label_at(labels, r, c, height, width) != own)
                return true;
    return false;
}

__device__ inline byte to_byte(float value)
{
    return (byte)rintf(fminf(fmaxf(value, 0.0f), 255.0f));
}

// What is laid on a pixel: the class's colour, and how much of it.
struct Coat {
    float color[3];
    float share;
};

// Up to four bytes, the first one lowest.
__device__ inline unsigned load(const byte *from, int count)
{
    if (count >= 4 && ((unsigned long long)from & 3) == 0)
        return *(const unsigned *)from;
    unsigned word = 0;
    for (int i = 0; i < 4; i++)
        if (i < count)
            word |= (unsigned)from[i] << (8 * i);
    return word;
}

__device__ inline void store(byte *to, unsigned word, int count)
{
    if (count >= 4 && ((unsigned long long)to & 3) == 0) {
        *(unsigned *)to = word;
        return;
    }
    for (int i = 0; i < 4; i++)
        if (i < count)
            to[i] = (byte)(word >> (8 * i));
}

// What is laid on up to four pixels of a row, from x on; their labels are written, too.
__device__ inline void coats_of(Coat coats[4], const Labels &labels, int only, int y, int x,
                                int count, int height, int width, const float4 *table, int line,
                                byte *out_labels)
{
    unsigned ids = 0x01010101u * only, lined = 0;
    if (only < 0) {
        ids = 0;
        Place row = place(y, labels.height, height);
#pragma unroll 1  // rare, and large
        for (int i = 0; i < count; i++) {
            int id = label_between(labels, row, place(x + i, labels.width, width));
            ids |= (unsigned)id << (8 * i);
            if (line && table[id].w != 0.0f && on_line(labels, id, y, x + i, height, width, line))
                lined |= 1u << i;
        }
    }
    if (out_labels)
        store(out_labels + (long long)y * width + x, ids, count);
    for (int i = 0; i < 4; i++) {
        float4 ink = table[(ids >> (8 * i)) & 255];
        // No share: not painted. Below: lines only.
        float share = (lined >> i) & 1 ? 1.0f : fmaxf(ink.w, 0.0f);
        coats[i] = {{ink.x, ink.y, ink.z}, share};
    }
}

__device__ inline byte mixed(unsigned sample, float color, float share)
{
    return to_byte((1.0f - share) * (float)sample + share * color);
}

// A thread paints four pixels of a row.
extern "C" __global__ void paint_rgb(Picture in, Picture out, int height, int width, Labels labels,
                                     const float4 *table, byte *out_labels, int line)
{
    int x = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    int count = min(4, width - x), reach = line ? (line + 1) / 2 : 0;
    int only = only_label(labels, y - reach, y + reach, x - reach, x + 3 + reach, height, width);
    Coat coats[4];
    coats_of(coats, labels, only, y, x, count, height, width, table, line, out_labels);
    const byte *from = in.first + (long long)y * in.pitch + 3 * x;
    byte *to = out.first + (long long)y * out.pitch + 3 * x;
    for (int word = 0; word < 3; word++) {
        unsigned samples = load(from + 4 * word, 3 * count - 4 * word), painted = 0;
        for (int i = 0; i < 4; i++) {
            const Coat &coat = coats[(4 * word + i) / 3];
            unsigned sample = (samples >> (8 * i)) & 255;
            painted |= (unsigned)mixed(sample, coat.color[(4 * word + i) % 3], coat.share)
                       << (8 * i);
        }
        store(to + 4 * word, painted, 3 * count - 4 * word);
    }
}

// A sample of chroma stands for four pixels: it gets as much of each one's colour as they would
// have got together.
__device__ inline byte mixed_of_four(unsigned sample, const Coat *upper, const Coat *lower, int c)
{
    float rest = (1.0f - upper[0].share) + (1.0f - upper[1].share) + (1.0f - lower[0].share) +
                 (1.0f - lower[1].share);
    float laid = upper[0].share * upper[0].color[c] + upper[1].share * upper[1].color[c] +
                 lower[0].share * lower[0].color[c] + lower[1].share * lower[1].color[c];
    return to_byte(0.25f * (rest * (float)sample + laid));
}

// A thread paints four pixels of two rows: two samples of each plane of chroma. Sides are even.
extern "C" __global__ void paint_planes(Picture in, Picture out, int height, int width,
                                        Labels labels, const float4 *table, byte *out_labels,
                                        int line)
{
    int x = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    int y = 2 * (blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= width || y >= height)
        return;
    int count = min(4, width - x), reach = line ? (line + 1) / 2 : 0;
    int only =
        only_label(labels, y - reach, y + 1 + reach, x - reach, x + 3 + reach, height, width);
    Coat coats[2][4];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        coats_of(coats[r], labels, only, y + r, x, count, height, width, table, line, out_labels);
        unsigned samples = load(in.first + (long long)(y + r) * in.pitch + x, count), painted = 0;
        for (int i = 0; i < 4; i++) {
            const Coat &coat = coats[r][i];
            painted |= (unsigned)mixed((samples >> (8 * i)) & 255, coat.color[0], coat.share)
                       << (8 * i);
        }
        store(out.first + (long long)(y + r) * out.pitch + x, painted, count);
    }
    long long from = (long long)(y / 2) * in.chroma_pitch + x / 2 * in.chroma_step;
    long long to = (long long)(y / 2) * out.chroma_pitch + x / 2 * out.chroma_step;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (2 * i >= count)
            continue;
        const Coat *upper = coats[0] + 2 * i, *lower = coats[1] + 2 * i;
        out.u[to + i * out.chroma_step] =
            mixed_of_four(in.u[from + i * in.chroma_step], upper, lower, 1);
        out.v[to + i * out.chroma_step] =
            mixed_of_four(in.v[from + i * in.chroma_step], upper, lower, 2);
    }
}
