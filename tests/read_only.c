/* Makes one file system read-only for one program: while the file FAFNIR_TEST_READ_ONLY is there, whatever would change
 * something on the device of the directory FAFNIR_TEST_ROOT fails with EROFS, as after an error of the disk. Linux refuses to
 * remount a file system that is written to, so a test cannot have that from the kernel. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_on(dev_t device) {
  const char *root = getenv("FAFNIR_TEST_ROOT"), *flag = getenv("FAFNIR_TEST_READ_ONLY");
  struct stat at;
  return root && flag && access(flag, F_OK) == 0 && stat(root, &at) == 0 && at.st_dev == device;
}

static int fd_is(int fd) {
  int kept = errno;
  struct stat at;
  int is = fstat(fd, &at) == 0 && S_ISREG(at.st_mode) && is_on(at.st_dev);
  errno = kept;
  return is;
}

static int path_is(const char *path) {
  int kept = errno;
  struct stat at;
  char parent[4096];
  int is = 0;
  if (stat(path, &at) == 0) {
    is = is_on(at.st_dev);
  } else if (strlen(path) < sizeof parent) {
    char *slash = strrchr(strcpy(parent, path), '/');
    if (slash && slash != parent) {
      *slash = 0;
      is = stat(parent, &at) == 0 && is_on(at.st_dev);
    }
  }
  errno = kept;
  return is;
}

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define REFUSED(test) \
  if (test) { errno = EROFS; return -1; }

ssize_t write(int fd, const void *b, size_t n) { REAL(write); REFUSED(fd_is(fd)) return real(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(pwrite); REFUSED(fd_is(fd)) return real(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(pwrite64); REFUSED(fd_is(fd)) return real(fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); REFUSED(fd_is(fd)) return real(fd, v, n); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); REFUSED(fd_is(fd)) return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); REFUSED(fd_is(fd)) return real(fd, n); }
int fallocate(int fd, int m, off_t o, off_t n) { REAL(fallocate); REFUSED(fd_is(fd)) return real(fd, m, o, n); }
int fallocate64(int fd, int m, off64_t o, off64_t n) { REAL(fallocate64); REFUSED(fd_is(fd)) return real(fd, m, o, n); }
int rename(const char *a, const char *b) { REAL(rename); REFUSED(path_is(b)) return real(a, b); }
int unlink(const char *a) { REAL(unlink); REFUSED(path_is(a)) return real(a); }
int mkdir(const char *a, mode_t m) { REAL(mkdir); REFUSED(path_is(a)) return real(a, m); }
int chmod(const char *a, mode_t m) { REAL(chmod); REFUSED(path_is(a)) return real(a, m); }

#define OPENING(flags) \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
  REFUSED((flags & (O_WRONLY | O_RDWR | O_TRUNC)) && path_is(path))

int open(const char *path, int flags, ...) { REAL(open); OPENING(flags) return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { REAL(open64); OPENING(flags) return real(path, flags, mode); }
