# SPDX-License-Identifier: MIT
# The kernel module for this machine's kernel, or the one whose headers KDIR has.
#   make modules [KDIR=DIR]
#   make modules_install [KDIR=DIR]     as root: into /lib/modules
#   make dkms_install                   as root: the sources for DKMS, which then builds it for each kernel
# `make uninstall` takes both away again, for all kernels.

KDIR ?= /lib/modules/$(shell uname -r)/build
KMOD_SRC := Kbuild uapi/llm.h $(shell find kmod -name '*.[ch]' -o -name Kbuild -o -name '*.mk' ! -name rules.mk)
KMOD_DIR := $(O)/module
DKMS_DIR = $(DESTDIR)/usr/src/llmdev-$(VERSION)
# Where the kernel's own build puts modules from outside: updates, before 5.20 extra; DKMS elsewhere.
MODULE_FILES = $(wildcard $(foreach d,updates extra,$(DESTDIR)/lib/modules/*/$(d)/llm.ko*))

# A make of its own: our O= means something else to it.
KBUILD = env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES $(MAKE) -C $(KDIR) M=$(abspath $(KMOD_DIR))

# Built in a copy, so that the sources' folders stay clean.
.PHONY: modules modules_install dkms_install module_uninstall
modules: ## build the kernel module (KDIR=headers of another kernel)
	$(Q)[ -e "$(KDIR)/Makefile" ] || { echo "modules: $(KDIR): no kernel headers: apt install linux-headers-$$(uname -r), or give KDIR=" >&2; exit 1; }
	$(Q)for f in $(KMOD_SRC); do cmp -s $$f $(KMOD_DIR)/$$f || install -D -m 644 $$f $(KMOD_DIR)/$$f; done
	$(Q)$(KBUILD) modules

modules_install: modules ## install it (as root)
	$(Q)$(KBUILD) $(if $(DESTDIR),INSTALL_MOD_PATH=$(DESTDIR)) modules_install

dkms_install: $(O)/contrib/dkms.conf ## its sources for DKMS, under $(DESTDIR)/usr/src
	$(Q)for f in $(KMOD_SRC); do install -D -m 644 $$f $(DKMS_DIR)/$$f; done
	$(Q)install -D -m 644 $(O)/contrib/dkms.conf $(DKMS_DIR)/dkms.conf
	$(Q)echo "now: dkms install llmdev/$(VERSION)"

# DKMS first takes away what it built, then its sources go. A module that is loaded stays loaded.
uninstall: module_uninstall
module_uninstall:
	$(Q)if [ -z "$(DESTDIR)" ] && command -v dkms >/dev/null && [ -n "$$(dkms status llmdev/$(VERSION) 2>/dev/null)" ]; then \
		dkms remove llmdev/$(VERSION) --all; fi
	$(Q)rm -rf "$(DKMS_DIR)"
	$(Q)for f in $(MODULE_FILES); do rm -f "$$f"; k=$${f%/*/*}; \
		if [ -z "$(DESTDIR)" ] && command -v depmod >/dev/null; then depmod "$${k##*/}"; fi; done
