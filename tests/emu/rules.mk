# SPDX-License-Identifier: MIT
# The arm64 kernels on another machine: the CPU tests, cross-compiled and run under qemu-user.
# Correctness only: emulated speed says nothing. Without the cross compiler or qemu, and on arm64
# itself, where the unit tests run natively, tests/emu/run says so and skips.

EMU_CC    ?= aarch64-linux-gnu-gcc
EMU_QEMU  ?= qemu-aarch64
export EMU_QEMU
EMU_TESTS := test_cpu_kernels test_cpu_backend test_kv_fp8
EMU_SRC   := $(wildcard kernels/ref/*.c runtime/backend/ref/*.c runtime/backend/cpu/*.c) \
	     $(filter-out %_avx2.c %_avx512.c,$(wildcard kernels/cpu/*.c)) \
	     runtime/weights/dtype.c runtime/base/err.c
# Headers of libraries (jansson.h) are the same for every architecture; nothing of them is linked.
EMU_FLAGS := -std=gnu11 -O2 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	     -Wno-missing-field-initializers -fno-strict-aliasing -ffp-contract=off -pthread \
	     -idirafter /usr/include
EMU_OK    := $(shell [ $(ARCH) != aarch64 ] && command -v $(EMU_CC) && command -v $(EMU_QEMU))

$(O)/emu/%.o: %.c
	$(say) EMUCC $<
	@mkdir -p $(@D)
	$(Q)$(EMU_CC) $(CPPFLAGS) $(EMU_FLAGS) $(isa) -MMD -MP -c -o $@ $<

$(O)/emu/kernels/cpu/%_neon.o: isa = $(ISA_neon)
$(O)/emu/kernels/cpu/%_generic.o: isa = -Wno-psabi

$(O)/emu/test_%: $(O)/emu/tests/unit/test_%.o $(EMU_SRC:%.c=$(O)/emu/%.o)
	$(say) LD $@
	$(Q)$(EMU_CC) -static -o $@ $^ -lm -lpthread

.PHONY: emu-programs check-emu
emu-programs: $(if $(word 2,$(EMU_OK)),$(EMU_TESTS:%=$(O)/emu/%))

check-emu: emu-programs ## the arm64 kernels under qemu-user
	$(Q)LLMDEV_BUILD=$(O) tests/run tests/emu/run

CHECK_BUILD += emu-programs
CHECK_RUN   += tests/emu/run

-include $(patsubst %.c,$(O)/emu/%.d,$(EMU_SRC) $(EMU_TESTS:%=tests/unit/%.c))
