/* Preloaded into ganesha.nfsd; what it cannot be told by its configuration.
 *
 * File handles given to clients contain the identity of the file system, and Ganesha takes that from statfs().  A FUSE
 * file system has none, so Ganesha takes its device number, which is another one after each mount: every handle would
 * be stale when a worker is started again.  Here statfs() answers with the identity that HOLDFAST_FSIDS, a file of
 * lines "16 hexadecimal digits, blank, path", gives to a path.
 *
 * Registering with rpcbind is an offer to clients, not a need: where there is no rpcbind, those of NFSv3 name the
 * ports (port=, mountport=), and Ganesha serves them instead of ending.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

bool svc_reg(void *transport, const uint32_t program, const uint32_t version, void *dispatch, const void *network)
{
	bool (*real)(void *, uint32_t, uint32_t, void *, const void *) = dlsym(RTLD_NEXT, "svc_reg");

	if (!real(transport, program, version, dispatch, network))
		fprintf(stderr, "program %u version %u is not registered with rpcbind\n", program, version);
	return true;
}
