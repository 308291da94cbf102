/* Preloaded into ganesha.nfsd; what it cannot be told by its configuration.
 *
 * File handles given to clients contain the identity of the file system, and Ganesha takes that from statfs().  A FUSE
 * file system has none, so Ganesha takes its device number, which is another one after each mount: every handle would
 * be stale when a worker is started again.  Here statfs() answers with the identity that HOLDFAST_FSIDS, a file of
 * lines "16 hexadecimal digits, blank, path", gives to a path.
 *
 * Registering with rpcbind is an offer to clients, not a need: where there is no rpcbind, those of NFSv3 name the
 * ports (port=, mountport=), and Ganesha serves them instead of ending.
 *
 * With each piece that is read from a FUSE file its time of access becomes unknown to the kernel, which asks the worker
 * as soon as somebody wants to know it: each READ of a client would wait for an answer that stands behind the next
 * megabyte in the worker's queue.  Reading changes no time of access here, and what changes it goes through this kernel,
 * so what it remembers is right: fstat() and fstatat() do not insist on that one time.  Ganesha loads its parts for file
 * systems so that they would prefer the C library's own (RTLD_DEEPBIND); here they are loaded without that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define FUSE_MAGIC 0x65735546
#define DIGITS 16

static uint64_t given(const char *path)
{
	const char *name = getenv("HOLDFAST_FSIDS");
	FILE *file = name ? fopen(name, "re") : NULL;
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	uint64_t found = 0;

	if (!file)
		return 0;
	while (!found && (length = getline(&line, &room, file)) > DIGITS + 1) {
		if (line[length - 1] == '\n')
			line[length - 1] = '\0';
		if (!strcmp(line + DIGITS + 1, path))
			found = strtoull(line, NULL, DIGITS);
	}
	free(line);
	fclose(file);
	return found;
}

int statfs64(const char *path, struct statfs64 *answer)
{
	int (*real)(const char *, struct statfs64 *) = dlsym(RTLD_NEXT, "statfs64");
	int result = real(path, answer);
	uint64_t identity;

	if (!result && answer->f_type == FUSE_MAGIC && (identity = given(path)))
		memcpy(&answer->f_fsid, &identity, sizeof(identity));
	return result;
}

static struct timespec moment(struct statx_timestamp given)
{
	return (struct timespec){.tv_sec = given.tv_sec, .tv_nsec = given.tv_nsec};
}

int fstatat64(int folder, const char *path, struct stat64 *answer, int flags)
{
	struct statx found;

	if (statx(folder, path, flags, STATX_BASIC_STATS & ~STATX_ATIME, &found))
		return -1;
	*answer = (struct stat64){
		.st_dev = makedev(found.stx_dev_major, found.stx_dev_minor),
		.st_ino = found.stx_ino,
		.st_mode = found.stx_mode,
		.st_nlink = found.stx_nlink,
		.st_uid = found.stx_uid,
		.st_gid = found.stx_gid,
		.st_rdev = makedev(found.stx_rdev_major, found.stx_rdev_minor),
		.st_size = found.stx_size,
		.st_blksize = found.stx_blksize,
		.st_blocks = found.stx_blocks,
		.st_atim = moment(found.stx_atime),
		.st_mtim = moment(found.stx_mtime),
		.st_ctim = moment(found.stx_ctime),
	};
	return 0;
}

int fstat64(int fd, struct stat64 *answer)
{
	return fstatat64(fd, "", answer, AT_EMPTY_PATH);
}

void *dlopen(const char *path, int flags)
{
	void *(*real)(const char *, int) = dlsym(RTLD_NEXT, "dlopen");

	return real(path, flags & ~RTLD_DEEPBIND);
}

bool svc_reg(void *transport, const uint32_t program, const uint32_t version, void *dispatch, const void *network)
{
	bool (*real)(void *, uint32_t, uint32_t, void *, const void *) = dlsym(RTLD_NEXT, "svc_reg");

	if (!real(transport, program, version, dispatch, network))
		fprintf(stderr, "program %u version %u is not registered with rpcbind\n", program, version);
	return true;
}
