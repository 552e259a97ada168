# SPDX-License-Identifier: MIT
# The kernel module in virtual machines; see tests/vm/run. Needs QEMU and, the first time, a network;
# without either the tests say so and are skipped.
#   make check-vm [KERNEL=6.1|6.12|7.2|debug] [VM_ARCH=x86_64|arm64]  one kernel
#   make check-vm-full     7.2, all of the debug kernel, stress: an hour; builds the debug kernel
# `make check` runs 6.1 and 6.12 on x86-64 and 6.1 on arm64, and a part of the tests on the debug
# kernel where that was built.

KERNEL ?= 6.1
.PHONY: check-vm
check-vm: ## test the kernel module in a VM: KERNEL=6.1|6.12|7.2|debug, VM_ARCH=x86_64|arm64
	$(Q)tools/deps check
	$(Q)LLMDEV_BUILD=$(O) KERNEL=$(KERNEL) ARCH=$(or $(VM_ARCH),x86_64) tests/run tests/vm/check

.PHONY: check-vm-full
check-vm-full: $(O)/llmdevd $(O)/llmctl $(O)/llmdev-policyd ## the same at length: 7.2, KASAN and lockdep, stress; an hour
	$(Q)tools/deps check
	$(Q)LLMDEV_BUILD=$(O) tests/vm/full

.PHONY: demo-vm
demo-vm: $(O)/llmdevd $(O)/llmctl ## a shell in a VM with the built-in model behind /dev/llm0; SCRIPT=1: watch a kill -9 instead
	$(Q)tools/deps check
	$(Q)LLMDEV_BUILD=$(O) tools/demo-vm $(if $(SCRIPT),script)

# `make check` also boots two with the real llmdevd in them (daemon.sh, restart.sh), and one with
# llmdev-policyd and llmctl (policy.sh).
CHECK_RUN += tests/vm/check-daemon tests/vm/check-policy tests/vm/check-restart tests/vm/check-6.1 tests/vm/check-6.12 tests/vm/check-6.1-arm64 tests/vm/check-numa tests/vm/check-debug
