/* A C library's clock that is AHEAD seconds ahead, to be loaded in front of it (LD_PRELOAD). libfaketime does more, and rustc's
 * allocator, which asks for the time before there is memory, waits for it for ever. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += AHEAD;
    return (int)status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    long status = syscall(SYS_gettimeofday, now, zone);
    if (status == 0)
        now->tv_sec += AHEAD;
    return (int)status;
}

time_t time(time_t *now)
{
    struct timespec precise = {0};
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}
