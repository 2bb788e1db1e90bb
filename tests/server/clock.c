/*
 * A wall clock that a test can set: preloaded into a server, it adds the microseconds that it finds
 * in the file $PG_REAPER_CLOCK to what the kernel says.  The monotonic clock stays as it is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none = 0;
static const volatile int64_t *ahead = &none;

__attribute__((constructor)) static void
open_clock(void)
{
	const char *path = getenv("PG_REAPER_CLOCK");
	int			fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void	   *page;

	if (fd < 0)
		abort();
	page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		abort();
	close(fd);
	ahead = page;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	int			failed = (int) syscall(SYS_clock_gettime, clock, now);

	if (failed == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
	{
		int64_t		ns = now->tv_nsec + *ahead % 1000000 * 1000;

		now->tv_sec += *ahead / 1000000 + (ns < 0 ? -1 : ns / 1000000000);
		now->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
	}
	return failed;
}

int
gettimeofday(struct timeval *now, void *zone)
{
	struct timespec precise;

	(void) zone;
	clock_gettime(CLOCK_REALTIME, &precise);
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *where)
{
	struct timespec precise;

	clock_gettime(CLOCK_REALTIME, &precise);
	if (where)
		*where = precise.tv_sec;
	return precise.tv_sec;
}
