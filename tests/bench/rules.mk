# SPDX-License-Identifier: MIT
# Benchmark programs: tests/bench/NAME.c becomes $(O)/bench/NAME.

# vm_*.c are compiled by vm_device.py, for the virtual machine.
BENCH := $(patsubst tests/bench/%.c,$(O)/bench/%,$(filter-out tests/bench/vm_%,$(wildcard tests/bench/*.c)))

$(O)/bench/%: $(O)/tests/bench/%.o $(RT_LIB)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS)

$(O)/bench/membw: $(call obj,tools/llmctl/bandwidth.c)

.PHONY: bench-programs bench-vm
bench-programs: $(BENCH)

bench-vm: $(O)/llmdevd $(O)/llmctl ## what the kernel module costs beside a socket, measured in VMs
	$(Q)tools/deps check
	$(Q)LLMDEV_BUILD=$(O) tests/bench/vm_device.py $(if $(JSON),--json $(JSON))

.PHONY: bench-restart
bench-restart: $(O)/llmdevd $(O)/llmctl $(O)/llmdev-keeper ## kill -9, until the next daemon's first token: weights that are read or found (5 GB of disk)
	$(Q)tests/bench/restart.py --build $(O) $(if $(JSON),--json $(JSON))

-include $(patsubst tests/bench/%.c,$(O)/tests/bench/%.d,$(wildcard tests/bench/*.c))
