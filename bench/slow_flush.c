/*
 * How does a server fare whose disk takes a millisecond more to make a write durable?
 *
 * Loaded before the C library (LD_PRELOAD), which does the flush itself after that millisecond, as many disks of clouds do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

int
fdatasync(int file)
{
	static int (*flush)(int);

	if (flush == NULL)
		flush = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
	usleep(1000);
	return flush(file);
}
