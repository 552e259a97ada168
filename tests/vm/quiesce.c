// SPDX-License-Identifier: MIT
/* quiesce NAME: ask the backend of the device to let go within 5 seconds (for daemon.sh). */
#include "tests/vm/vm.h"

int main(int argc, char **argv)
{
	struct llm_device_name n = {.size = sizeof(n), .deadline_ns = now_ns() + 5000000000ull};

	snprintf((char *)n.name, sizeof(n.name), "%s", argc > 1 ? argv[1] : "");
	if (!ioctl(control(), LLM_IOC_DEVICE_QUIESCE, &n))
		return 0;
	perror("quiesce");
	return 1;
}
