// SPDX-License-Identifier: MIT
/* quiesce NAME [MS]: ask the backend of the device to let go within 5 seconds, or MS (for daemon.sh). */
#include "tests/vm/vm.h"

int main(int argc, char **argv)
{
	uint64_t ms = argc > 2 ? strtoull(argv[2], NULL, 10) : 5000;
	struct llm_device_name n = {.size = sizeof(n), .deadline_ns = now_ns() + ms * 1000000};

	snprintf((char *)n.name, sizeof(n.name), "%s", argc > 1 ? argv[1] : "");
	if (!ioctl(control(), LLM_IOC_DEVICE_QUIESCE, &n))
		return 0;
	perror("quiesce");
	return 1;
}
