# SPDX-License-Identifier: MIT
#
# llmdev: `make help` lists the targets. Everything is built under $(O) (default: build).
#
# A new .c file in one of the folders below is picked up by itself. Targets of one area alone stand
# in that area's rules.mk (included at the end); for `make check` it may append to
#   CHECK_BUILD   targets to build first
#   CHECK_RUN     programs that speak TAP, run from the repository's root by tests/run
# Both are left out of `make SAN=1 check`, which runs the unit and end-to-end tests.

VERSION  := 0.1.0
O        ?= build
PREFIX   ?= /usr/local
LIBDIR   ?= $(PREFIX)/lib
DESTDIR  ?=
V        ?= 0
SAN      ?= 0
CROSS_COMPILE ?=

MAKEFLAGS += -r --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:

ifneq ($(filter default undefined,$(origin CC)),)
CC := $(CROSS_COMPILE)gcc
endif
ifneq ($(filter default undefined,$(origin AR)),)
AR := $(CROSS_COMPILE)ar
endif
CLANG    ?= clang
# The compiler may be missing still: `make deps`, `run` and `check` install it, then start make anew.
ARCH     := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))
IS_CLANG := $(findstring clang,$(shell $(CC) --version 2>/dev/null))

ifeq ($(SAN),1)
ifeq ($(O),build)
override O := build/san
endif
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer \
	    $(if $(IS_CLANG),,-fno-var-tracking-assignments)
# Optimising checked code costs minutes of compiling and saves seconds of running.
CFLAGS   ?= -O1 -g
KERNEL_OPT :=
else
CFLAGS   ?= -O2 -g
# Kernels live on their inner loops.
KERNEL_OPT := -O3
endif

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-7s %s\n'
endif

WARN     := -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes \
	    $(if $(IS_CLANG),-Wshadow,-Wshadow=local) \
	    -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare
CPPFLAGS += -D_GNU_SOURCE -Iruntime -I. -Iuapi
override CFLAGS += -std=gnu11 $(WARN) -fno-strict-aliasing -ffp-contract=off -pthread $(SANFLAGS)
LDLIBS   += -luring -lnuma -ljansson -lpcre2-8 -lm -lpthread
LDFLAGS  += $(SANFLAGS)
# libcurl is optional: without it `llmctl bench serve` has no --url.
CURL     := $(shell $(CC) $(CPPFLAGS) -include curl/curl.h -x c -E /dev/null >/dev/null 2>&1 && echo -lcurl)
# libmicrohttpd is optional: without it llmdev-gateway is not built.
MHD      := $(shell $(CC) $(CPPFLAGS) -include microhttpd.h -x c -E /dev/null >/dev/null 2>&1 && echo -lmicrohttpd)

# ---- sources --------------------------------------------------------------------------------------

RT_DIRS  := runtime/base runtime/memory runtime/weights runtime/text runtime/text/template \
	    runtime/text/output runtime/text/grammar runtime/model runtime/backend \
	    runtime/backend/ref runtime/backend/cpu runtime/engine kernels/ref
RT_SRC   := $(foreach d,$(RT_DIRS),$(wildcard $(d)/*.c)) \
	    $(filter-out %_avx2.c %_avx512.c %_neon.c,$(wildcard kernels/cpu/*.c))
ifeq ($(ARCH),x86_64)
RT_SRC   += $(wildcard kernels/cpu/*_avx2.c kernels/cpu/*_avx512.c)
endif
ifeq ($(ARCH),aarch64)
RT_SRC   += $(wildcard kernels/cpu/*_neon.c)
endif
# libllmdev stands alone: it brings the two files that it shares with the runtime.
LIB_SRC  := $(wildcard runtime/lib/*.c) runtime/transport/message.c runtime/base/err.c
DAEMON_SRC := $(wildcard runtime/llmdevd/*.c runtime/transport/*.c)
CTL_SRC  := $(wildcard tools/llmctl/*.c)
HTTP_SRC := $(if $(MHD),$(wildcard runtime/http/*.c))
UNIT_SRC := $(filter-out $(if $(MHD),,%/test_http%.c %/test_responses.c),$(wildcard tests/unit/test_*.c))
E2E      := $(wildcard tests/e2e/*.sh)

obj       = $(patsubst %.c,$(O)/%.o,$(1))
RT_LIB   := $(O)/libllmrt.a
DEV_LIB  := $(O)/libllmdev.a
# The daemon's and llmctl's parts as archives too, so that unit tests can link what they test.
DAEMON_LIB := $(O)/llmdevd.a
CTL_LIB  := $(O)/llmctl.a
HTTP_LIB := $(if $(MHD),$(O)/llmdev-gateway.a)
BINS     := $(if $(DAEMON_SRC),$(O)/llmdevd) $(if $(CTL_SRC),$(O)/llmctl) $(O)/llmdev-keeper \
	    $(if $(MHD),$(O)/llmdev-gateway)
UNIT     := $(patsubst tests/unit/%.c,$(O)/tests/%,$(UNIT_SRC))

ISA_avx2   := -mavx2 -mfma -mf16c
ISA_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mfma -mf16c
ISA_neon   := -march=armv8.6-a+dotprod+i8mm+bf16+fp16

# ---- compiling ------------------------------------------------------------------------------------

.PHONY: all
all: $(BINS) $(DEV_LIB) ## build the programs and the client library
ifeq ($(MHD),)
	@echo '  llmdev-gateway is not built: microhttpd.h is missing: install libmicrohttpd-dev'
endif

# $(call changed,TEXT): keeps the target's content equal to TEXT and its time stamp where it was if
# nothing changed. What depends on it is rebuilt when flags or lists of sources change.
changed = @mkdir -p $(@D); echo '$(1)' | cmp -s - $@ || echo '$(1)' >$@
.PHONY: FORCE
FORCE:
$(O)/.flags: FORCE
	$(call changed,$(CC) $(CPPFLAGS) $(CFLAGS))
$(O)/.curl: FORCE
	$(call changed,$(CURL))
$(O)/.sources: FORCE
	$(call changed,$(RT_SRC) $(LIB_SRC) $(DAEMON_SRC) $(CTL_SRC) $(HTTP_SRC) $(LDFLAGS) $(LDLIBS))

$(O)/%.o: %.c $(O)/.flags
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(isa) -MMD -MP -c -o $@ $<

$(O)/tools/llmctl/bench_http.o: $(O)/.curl
$(O)/tools/llmctl/bench_http.o: override CPPFLAGS += $(if $(CURL),-DHAVE_LIBCURL)
$(O)/kernels/cpu/%_avx2.o: isa = $(ISA_avx2)
$(O)/kernels/cpu/%_avx512.o: isa = $(ISA_avx512)
$(O)/kernels/cpu/%_neon.o: isa = $(ISA_neon)
# Its vectors have no ABI on every machine, and are never passed: all is inlined.
$(O)/kernels/cpu/%_generic.o: override CFLAGS += -Wno-psabi
$(O)/kernels/%.o: override CFLAGS += $(KERNEL_OPT)

define archive
	$(say) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)
endef
$(RT_LIB): $(call obj,$(RT_SRC)) $(O)/.sources
	$(archive)
$(DEV_LIB): $(call obj,$(LIB_SRC)) $(O)/.sources
	$(archive)
$(DAEMON_LIB): $(call obj,$(DAEMON_SRC)) $(O)/.sources
	$(archive)
$(CTL_LIB): $(call obj,$(CTL_SRC)) $(O)/.sources
	$(archive)
$(O)/llmdev-gateway.a: $(call obj,$(HTTP_SRC)) $(O)/.sources
	$(archive)
# The page is a part of the program.
$(O)/runtime/http/page.o: runtime/http/page/index.html docs/openapi.json

define link
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LDLIBS)
endef
$(O)/llmdevd: $(call obj,$(DAEMON_SRC)) $(DEV_LIB) $(RT_LIB)
	$(link)
$(O)/llmctl: $(call obj,$(CTL_SRC)) $(DAEMON_LIB) $(DEV_LIB) $(RT_LIB)
	$(link) -ledit $(CURL)
# A client, not a part of the runtime: none of the libraries that computing needs.
$(O)/llmdev-gateway: override LDLIBS = -ljansson -lmicrohttpd -lm -lpthread
$(O)/llmdev-gateway: $(call obj,$(HTTP_SRC) runtime/base/notify.c runtime/base/size.c) $(DEV_LIB)
	$(link)
# Small: it stays when everything else is gone.
$(O)/llmdev-keeper: override LDLIBS =
$(O)/llmdev-keeper: $(call obj,tools/keeper/main.c runtime/memory/keeper.c runtime/memory/keeper_msg.c runtime/memory/region_name.c \
		    runtime/base/notify.c runtime/base/err.c)
	$(link)
$(O)/tests/test_%: $(O)/tests/unit/test_%.o $(HTTP_LIB) $(CTL_LIB) $(DAEMON_LIB) $(DEV_LIB) $(RT_LIB)
	$(link) $(MHD)

# ---- using it -------------------------------------------------------------------------------------

NPROC := $(shell nproc 2>/dev/null || echo 1)
# A make that was not told -j uses every core.
JOBS   = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(NPROC))

# What the compiler is was asked when this file was read: after installing one, make starts anew.
.PHONY: deps
deps: ## install what building, running and testing need (asks on a terminal)
	$(Q)tools/deps check

.PHONY: run
run: ## build, start llmdevd on the built-in model and ask it something
	$(Q)tools/deps run
	$(Q)$(MAKE) $(JOBS) all
	$(Q)LLMDEV_BUILD=$(O) tools/run-demo

.PHONY: check
check: ## every test; SAN=1: unit and end-to-end tests under ASan and UBSan
	$(Q)tools/deps check
	$(Q)$(MAKE) $(JOBS) check-build
	$(Q)$(MAKE) check-run

.PHONY: unit
unit: $(UNIT) ## build the unit tests ($(O)/tests/test_*; run them with tests/run)

# ---- installing -----------------------------------------------------------------------------------

SYSTEMD_DIR := $(PREFIX)/lib/systemd/system
# mode:source:destination, one word a file; the same list serves install and uninstall.
INSTALL  = 755:$(O)/llmctl:$(PREFIX)/bin/llmctl \
	   755:$(O)/llmdevd:$(PREFIX)/sbin/llmdevd \
	   755:$(O)/llmdev-keeper:$(PREFIX)/sbin/llmdev-keeper \
	   $(if $(MHD),755:$(O)/llmdev-gateway:$(PREFIX)/sbin/llmdev-gateway \
	     644:$(O)/contrib/llmdev-gateway.service:$(SYSTEMD_DIR)/llmdev-gateway.service) \
	   644:$(DEV_LIB):$(LIBDIR)/libllmdev.a \
	   644:runtime/lib/llmdev.h:$(PREFIX)/include/llmdev.h \
	   644:uapi/llm.h:$(PREFIX)/include/llm.h \
	   644:$(O)/contrib/llmdev.pc:$(LIBDIR)/pkgconfig/llmdev.pc \
	   644:contrib/llmctl.bash:$(PREFIX)/share/bash-completion/completions/llmctl \
	   644:$(O)/contrib/llmdevd@.service:$(SYSTEMD_DIR)/llmdevd@.service \
	   644:$(O)/contrib/llmdev-keeper.service:$(SYSTEMD_DIR)/llmdev-keeper.service \
	   644:contrib/60-llmdev.rules:$(PREFIX)/lib/udev/rules.d/60-llmdev.rules \
	   644:contrib/sysusers.conf:$(PREFIX)/lib/sysusers.d/llmdev.conf \
	   $(foreach f,$(wildcard docs/man/*.1),644:$(f):$(PREFIX)/share/man/man1/$(notdir $(f))) \
	   $(foreach f,$(wildcard docs/man/*.8),644:$(f):$(PREFIX)/share/man/man8/$(notdir $(f))) \
	   $(foreach f,$(wildcard tools/demo/model/*),644:$(f):$(PREFIX)/share/llmdev/demo/$(notdir $(f)))

# Files that name where things were installed: made anew each time, PREFIX may differ.
$(O)/contrib/%: contrib/%.in FORCE
	@mkdir -p $(@D)
	$(Q)sed 's|@PREFIX@|$(PREFIX)|g; s|@LIBDIR@|$(LIBDIR)|g; s|@VERSION@|$(VERSION)|g' $< >$@

.PHONY: install
install: all $(O)/contrib/llmdev.pc $(O)/contrib/llmdevd@.service $(O)/contrib/llmdev-keeper.service \
	 $(O)/contrib/llmdev-gateway.service ## install under $(DESTDIR)$(PREFIX)
	$(Q)set -e; for f in $(INSTALL); do \
		mode=$${f%%:*}; f=$${f#*:}; \
		install -D -m $$mode "$${f%%:*}" "$(DESTDIR)$${f#*:}"; \
	done
	$(say) INSTALL $(DESTDIR)$(PREFIX)

.PHONY: uninstall
uninstall: ## remove what install put there
	$(Q)for f in $(INSTALL); do rm -f "$(DESTDIR)$${f##*:}"; done
	$(Q)rmdir "$(DESTDIR)$(PREFIX)/share/llmdev/demo" "$(DESTDIR)$(PREFIX)/share/llmdev" 2>/dev/null || :
	$(Q)[ -z "$(DESTDIR)" ] || [ ! -d "$(DESTDIR)" ] || find "$(DESTDIR)" -mindepth 1 -depth -type d -empty -delete
	$(say) REMOVE $(DESTDIR)$(PREFIX)

.PHONY: clean
clean: ## remove $(O)
	$(Q)rm -rf $(O)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  O=DIR build there; V=1 show commands; SAN=1 sanitizers; PREFIX=DIR, DESTDIR=DIR for install;'
	@echo '  CC=clang; CROSS_COMPILE=aarch64-linux-gnu-'

-include $(patsubst %.c,$(O)/%.d,$(RT_SRC) tools/keeper/main.c $(LIB_SRC) $(DAEMON_SRC) $(CTL_SRC) $(HTTP_SRC) $(UNIT_SRC))

# Each area keeps its own targets.
-include $(sort $(wildcard tests/*/rules.mk tools/*/rules.mk kernels/rules.mk kmod/rules.mk))

.PHONY: check-build check-run
check-build: all unit $(if $(filter 1,$(SAN)),,$(CHECK_BUILD))
check-run:
	$(Q)LLMDEV_BUILD=$(O) tests/run $(UNIT) $(E2E) $(if $(filter 1,$(SAN)),,$(CHECK_RUN))
