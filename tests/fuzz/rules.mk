# SPDX-License-Identifier: MIT
# libFuzzer targets: every tests/fuzz/fuzz_NAME.c, linked with the library sources that read what
# comes from outside. Needs clang with its fuzzer runtime; without it `make fuzz` says so and skips.
#   make fuzz [FUZZ_SECONDS=10]     each target runs so long over tests/fuzz/corpus/fuzz_NAME
# `make check` does the same.

FUZZ_SECONDS ?= 10
export FUZZ_SECONDS
FUZZ_DIRS  := runtime/base runtime/weights runtime/text runtime/text/template runtime/text/output runtime/text/grammar runtime/transport runtime/lib
FUZZ_LIB   := $(foreach d,$(FUZZ_DIRS),$(wildcard $(d)/*.c))
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_OBJ   := $(O)/fuzz/obj
FUZZ_BIN   := $(patsubst tests/fuzz/%.c,$(O)/fuzz/%,$(FUZZ_SRC))
FUZZ_FLAGS := -std=gnu11 -O1 -g -fno-strict-aliasing -fno-omit-frame-pointer -pthread \
	      -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_OK     = $(shell echo 'int LLVMFuzzerTestOneInput(const char *p, long n) { return 0; }' | \
		$(CLANG) -x c -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null && echo yes)

$(FUZZ_OBJ)/%.o: %.c
	$(say) FUZZCC $<
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -w -MMD -MP -c -o $@ $<

$(O)/fuzz/library.a: $(patsubst %.c,$(FUZZ_OBJ)/%.o,$(FUZZ_LIB))
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(O)/fuzz/fuzz_%: $(FUZZ_OBJ)/tests/fuzz/fuzz_%.o $(O)/fuzz/library.a
	$(say) LD $@
	$(Q)$(CLANG) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

# The compiler is asked only where the answer matters: it takes a second.
.PHONY: fuzz fuzz-programs
ifneq ($(filter fuzz fuzz-programs check-build,$(MAKECMDGOALS)),)
fuzz-programs: $(if $(FUZZ_OK),$(FUZZ_BIN))
endif

fuzz: fuzz-programs ## fuzz what reads files and messages, FUZZ_SECONDS=10 each
	$(Q)LLMDEV_BUILD=$(O) tests/run tests/fuzz/run

CHECK_BUILD += fuzz-programs
CHECK_RUN   += tests/fuzz/run

-include $(patsubst %.c,$(FUZZ_OBJ)/%.d,$(FUZZ_LIB) $(FUZZ_SRC))
