# SPDX-License-Identifier: MIT
# llmdev-policyd: its program, its unit, an example of its configuration.
POLICYD_SRC := $(wildcard tools/policyd/*.c)
POLICYD_LIB := $(O)/llmdev-policyd.a
MEMORY_OBJ  := $(call obj,$(addprefix runtime/memory/,meminfo.c cache.c reclaim.c policy.c until.c) \
	       runtime/base/err.c runtime/base/size.c runtime/base/notify.c)

all: $(O)/llmdev-policyd
# For the unit test.
$(POLICYD_LIB): $(call obj,$(filter-out %/main.c,$(POLICYD_SRC)))
	$(archive)
# A small program that runs as root: none of the libraries that computing needs.
$(O)/llmdev-policyd: override LDLIBS = -ljansson
$(O)/llmdev-policyd: $(call obj,$(POLICYD_SRC)) $(MEMORY_OBJ)
	$(link)
$(O)/tests/test_policy: $(POLICYD_LIB)
# An archive finds what it needs only in what follows it.
$(O)/tests/test_policy: override LDLIBS := $(RT_LIB) $(LDLIBS)
$(O)/tests/unit/test_policy.o $(call obj,$(POLICYD_SRC)): override CPPFLAGS += -Itools/policyd

$(O)/tools/policyd/llmdev-policyd.service: tools/policyd/llmdev-policyd.service.in FORCE
	@mkdir -p $(@D)
	$(Q)sed 's|@PREFIX@|$(PREFIX)|g' $< >$@
install: $(O)/tools/policyd/llmdev-policyd.service
INSTALL += 755:$(O)/llmdev-policyd:$(PREFIX)/sbin/llmdev-policyd \
	   644:$(O)/tools/policyd/llmdev-policyd.service:$(SYSTEMD_DIR)/llmdev-policyd.service \
	   644:tools/policyd/example.conf:$(PREFIX)/share/doc/llmdev/policy.conf.example

-include $(patsubst %.c,$(O)/%.d,$(POLICYD_SRC))
