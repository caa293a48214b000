/* A USB camera for one program, without a kernel's help: preloaded, it answers open and ioctl on
 * $SHIM_CAMERA as a V4L2 driver does. Pictures are YUYV, or Motion JPEG from the file $SHIM_JPEG. The
 * driver's structures are the kernel's own (linux/videodev2.h), so that ours are checked by them.
 *
 * 640x480: YUYV and MJPG at 30 a second. 1280x720: YUYV at 10, MJPG at 30. While $SHIM_BUSY exists
 * the camera is another program's; while $SHIM_GONE exists it is unplugged.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 32
#define ROOM (2 * 1280 * 720)

static int camera = -1, queued[BUFFERS], head, tail, sequence;
static unsigned width = 640, height = 480, code = V4L2_PIX_FMT_YUYV;
static double fps = 30, next_at;

static int there(const char *name) {
    const char *path = getenv(name);
    return path && access(path, F_OK) == 0;
}

static int fail(int number) {
    errno = number;
    return -1;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int open_camera(const char *path) {
    const char *ours = getenv("SHIM_CAMERA");
    if (!ours || strcmp(path, ours))
        return -2;
    if (there("SHIM_GONE"))
        return fail(ENOENT);
    camera = memfd_create("camera", MFD_CLOEXEC);
    if (camera >= 0 && ftruncate(camera, (off_t)BUFFERS * ROOM))
        return fail(ENOMEM);
    head = tail = 0;
    return camera;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...) {                                                   \
        static int (*real)(const char *, int, ...);                                                \
        va_list rest;                                                                              \
        int found = open_camera(path);                                                             \
        if (found != -2)                                                                           \
            return found;                                                                          \
        if (!real)                                                                                 \
            real = dlsym(RTLD_NEXT, #name);                                                        \
        va_start(rest, flags);                                                                     \
        int mode = va_arg(rest, int);                                                              \
        va_end(rest);                                                                              \
        return real(path, flags, mode);                                                            \
    }
OPEN(open)
OPEN(open64)

static unsigned rate(unsigned pixels, unsigned w) {
    return pixels == V4L2_PIX_FMT_YUYV && w == 1280 ? 10 : 30;
}

static unsigned fill(unsigned char *at) {
    const char *path = getenv("SHIM_JPEG");
    if (code == V4L2_PIX_FMT_MJPEG) {
        FILE *file = fopen(path, "rb");
        size_t size = file ? fread(at, 1, ROOM, file) : 0;
        if (file)
            fclose(file);
        return size;
    }
    for (unsigned i = 0; i < width * height; i++) {
        at[2 * i] = 16 + 219 * (i % width) / width; /* a ramp of gray from left to right */
        at[2 * i + 1] = 128;
    }
    return 2 * width * height;
}

static int answer(unsigned long request, void *data) {
    static const unsigned codes[] = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG};
    if (there("SHIM_GONE"))
        return fail(ENODEV);
    if ((unsigned)request == VIDIOC_QUERYCAP) {
        struct v4l2_capability *c = data;
        memset(c, 0, sizeof *c);
        strcpy((char *)c->driver, "shim");
        c->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
    } else if ((unsigned)request == VIDIOC_ENUM_FMT) {
        struct v4l2_fmtdesc *f = data;
        if (f->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || f->index > 1)
            return fail(EINVAL);
        f->pixelformat = codes[f->index];
    } else if ((unsigned)request == VIDIOC_ENUM_FRAMESIZES) {
        struct v4l2_frmsizeenum *s = data;
        if (s->index > 1)
            return fail(EINVAL);
        s->type = V4L2_FRMSIZE_TYPE_DISCRETE;
        s->discrete.width = s->index ? 1280 : 640;
        s->discrete.height = s->index ? 720 : 480;
    } else if ((unsigned)request == VIDIOC_ENUM_FRAMEINTERVALS) {
        struct v4l2_frmivalenum *v = data;
        if (v->index || (v->width != 640 && v->width != 1280))
            return fail(EINVAL);
        v->type = V4L2_FRMIVAL_TYPE_DISCRETE;
        v->discrete.numerator = 1;
        v->discrete.denominator = rate(v->pixel_format, v->width);
    } else if ((unsigned)request == VIDIOC_G_INPUT) {
        *(int *)data = 0;
    } else if ((unsigned)request == VIDIOC_ENUMINPUT || (unsigned)request == VIDIOC_S_INPUT) {
        return 0;
    } else if ((unsigned)request == VIDIOC_S_FMT || (unsigned)request == VIDIOC_G_FMT) {
        struct v4l2_format *f = data;
        if (there("SHIM_BUSY"))
            return fail(EBUSY);
        if ((unsigned)request == VIDIOC_S_FMT) {
            width = f->fmt.pix.width == 1280 ? 1280 : 640;
            height = width == 1280 ? 720 : 480;
            code = f->fmt.pix.pixelformat == codes[1] ? codes[1] : codes[0];
        }
        f->fmt.pix.width = width;
        f->fmt.pix.height = height;
        f->fmt.pix.pixelformat = code;
        f->fmt.pix.field = V4L2_FIELD_NONE;
        f->fmt.pix.bytesperline = 2 * width;
        f->fmt.pix.sizeimage = 2 * width * height;
    } else if ((unsigned)request == VIDIOC_S_PARM || (unsigned)request == VIDIOC_G_PARM) {
        struct v4l2_streamparm *p = data;
        fps = rate(code, width);
        p->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        p->parm.capture.timeperframe.numerator = 1;
        p->parm.capture.timeperframe.denominator = fps;
    } else if ((unsigned)request == VIDIOC_REQBUFS) {
        struct v4l2_requestbuffers *r = data;
        r->count = r->count > BUFFERS ? BUFFERS : r->count;
    } else if ((unsigned)request == VIDIOC_QUERYBUF) {
        struct v4l2_buffer *b = data;
        b->length = ROOM;
        b->m.offset = b->index * ROOM;
    } else if ((unsigned)request == VIDIOC_QBUF) {
        queued[head++ % BUFFERS] = ((struct v4l2_buffer *)data)->index;
    } else if ((unsigned)request == VIDIOC_STREAMON) {
        next_at = now();
    } else if ((unsigned)request == VIDIOC_DQBUF) {
        struct v4l2_buffer *b = data;
        double left = next_at - now();
        if (tail == head)
            return fail(EIO);
        if (left > 0)
            usleep(1e6 * left);
        b->index = queued[tail++ % BUFFERS];
        unsigned char *at =
            mmap(0, ROOM, PROT_READ | PROT_WRITE, MAP_SHARED, camera, (off_t)b->index * ROOM);
        b->bytesused = fill(at);
        munmap(at, ROOM);
        b->timestamp.tv_sec = next_at;
        b->timestamp.tv_usec = 1e6 * (next_at - (long)next_at);
        b->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        b->sequence = sequence++;
        next_at += 1 / fps;
    } else if ((unsigned)request != VIDIOC_STREAMOFF) {
        return fail(ENOTTY);
    }
    return 0;
}

int ioctl(int fd, unsigned long request, ...) {
    static int (*real)(int, unsigned long, ...);
    va_list rest;
    va_start(rest, request);
    void *data = va_arg(rest, void *);
    va_end(rest);
    if (fd >= 0 && fd == camera)
        return answer(request, data);
    if (!real)
        real = dlsym(RTLD_NEXT, "ioctl");
    return real(fd, request, data);
}
