# SPDX-License-Identifier: MIT
# Benchmark programs: tests/bench/NAME.c becomes $(O)/bench/NAME.

BENCH := $(patsubst tests/bench/%.c,$(O)/bench/%,$(wildcard tests/bench/*.c))

$(O)/bench/%: $(O)/tests/bench/%.o $(RT_LIB)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS)

$(O)/bench/membw: $(call obj,tools/llmctl/bandwidth.c)

.PHONY: bench-programs
bench-programs: $(BENCH)

-include $(patsubst tests/bench/%.c,$(O)/tests/bench/%.d,$(wildcard tests/bench/*.c))
