// SPDX-License-Identifier: MIT
/*
 * For restart.sh: what a loader leaves that is killed half way, and other users.
 *
 *   region_tool half NAME BYTES SECONDS   a persistent region, not sealed; held open so long
 *   region_tool as UID COMMAND...         without any capability
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "llm.h"

static int half(const char *name, const char *bytes, const char *seconds)
{
	struct llm_region_create c = {.size = sizeof(c),
				      .flags = LLM_REGION_PERSISTENT,
				      .bytes = strtoull(bytes, NULL, 10),
				      .node = -1};
	int fd = open("/dev/llm-control", O_RDWR | O_CLOEXEC);

	snprintf((char *)c.name, sizeof(c.name), "%s", name);
	if (fd < 0 || ioctl(fd, LLM_IOC_REGION_CREATE, &c)) {
		perror(name);
		return 1;
	}
	sleep((unsigned)atoi(seconds));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "half"))
		return half(argv[2], argv[3], argv[4]);
	if (argc >= 4 && !strcmp(argv[1], "as")) {
		uid_t uid = (uid_t)atoi(argv[2]);

		if (setresgid(uid, uid, uid) || setresuid(uid, uid, uid)) {
			perror("setresuid");
			return 1;
		}
		execvp(argv[3], argv + 3);
		perror(argv[3]);
		return 127;
	}
	return 2;
}
