# SPDX-License-Identifier: MIT
#
# llmdev: `make help` lists the targets. Everything is built under $(O) (default: build).

O        ?= build
PREFIX   ?= /usr/local
DESTDIR  ?=
V        ?= 0
SAN      ?= 0

ifeq ($(origin CC),default)
CC := gcc
endif
AR       ?= ar
CLANG    ?= clang
ARCH     := $(shell $(CC) -dumpmachine | cut -d- -f1)

ifeq ($(SAN),1)
ifeq ($(O),build)
override O := build/san
endif
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
endif

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-7s %s\n'
endif

WARN     := -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes -Wshadow=local \
	    -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare
CPPFLAGS += -D_GNU_SOURCE -Iruntime -I. -Iuapi
CFLAGS   ?= -O2 -g
override CFLAGS += -std=gnu11 $(WARN) -fno-strict-aliasing -ffp-contract=off -pthread $(SANFLAGS)
LDLIBS   += -luring -lnuma -ljansson -lpcre2-8 -lm -lpthread
LDFLAGS  += $(SANFLAGS)

# ---- sources: a new .c file in one of these folders is picked up by itself ------------------------

RT_DIRS  := runtime/base runtime/weights runtime/text runtime/model runtime/backend \
	    runtime/backend/ref runtime/backend/cpu runtime/engine runtime/transport kernels/ref
RT_SRC   := $(foreach d,$(RT_DIRS),$(wildcard $(d)/*.c)) $(filter-out %_avx2.c %_avx512.c %_neon.c,$(wildcard kernels/cpu/*.c))
ifeq ($(ARCH),x86_64)
RT_SRC   += $(wildcard kernels/cpu/*_avx2.c kernels/cpu/*_avx512.c)
endif
ifeq ($(ARCH),aarch64)
RT_SRC   += $(wildcard kernels/cpu/*_neon.c)
endif
# The daemon without its main(): in the library, so that unit tests and llmctl chat can use it.
RT_SRC   += $(filter-out %/main.c,$(wildcard runtime/llmdevd/*.c))
# libllmdev stands alone: it brings the two files that it shares with the runtime.
LIB_SRC  := $(wildcard runtime/lib/*.c) runtime/transport/message.c runtime/base/err.c
DAEMON_SRC := $(wildcard runtime/llmdevd/main.c)
CTL_SRC  := $(wildcard tools/llmctl/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)

obj       = $(patsubst %.c,$(O)/%.o,$(1))
RT_LIB   := $(O)/libllmrt.a
DEV_LIB  := $(O)/libllmdev.a
BINS     := $(if $(DAEMON_SRC),$(O)/llmdevd) $(if $(CTL_SRC),$(O)/llmctl)
UNIT     := $(patsubst tests/unit/%.c,$(O)/tests/%,$(UNIT_SRC))

ISA_avx2   := -mavx2 -mfma -mf16c
ISA_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mfma -mf16c
ISA_neon   := -march=armv8.6-a+dotprod+i8mm+bf16+fp16

.PHONY: all
all: $(BINS) $(DEV_LIB)

$(O)/%.o: %.c
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(isa) -MMD -MP -c -o $@ $<

$(O)/kernels/cpu/%_avx2.o: isa = $(ISA_avx2)
$(O)/kernels/cpu/%_avx512.o: isa = $(ISA_avx512)
$(O)/kernels/cpu/%_neon.o: isa = $(ISA_neon)
# Kernels live on their inner loops; everything else is -O2.
$(O)/kernels/%.o: override CFLAGS += -O3

$(RT_LIB): $(call obj,$(RT_SRC))
	$(say) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(DEV_LIB): $(call obj,$(LIB_SRC))
	$(say) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(O)/llmdevd: $(call obj,$(DAEMON_SRC)) $(DEV_LIB) $(RT_LIB)
	$(say) LD $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(O)/llmctl: $(call obj,$(CTL_SRC)) $(DEV_LIB) $(RT_LIB)
	$(say) LD $@
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -ledit

$(O)/tests/test_%: $(O)/tests/unit/test_%.o $(DEV_LIB) $(RT_LIB)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

.PHONY: unit
unit: $(UNIT)

.PHONY: clean
clean:
	$(Q)rm -rf $(O)

-include $(wildcard $(patsubst %.c,$(O)/%.d,$(RT_SRC) $(LIB_SRC) $(DAEMON_SRC) $(CTL_SRC) $(UNIT_SRC)))

# Each area keeps its own targets (docs/CONTRIBUTING says which).
-include $(sort $(wildcard tests/*/rules.mk tools/*/rules.mk kernels/rules.mk kmod/rules.mk))
