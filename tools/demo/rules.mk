# SPDX-License-Identifier: MIT
# The built-in model. `demo-train` makes it again from docs/faq.md into $(O)/demo/model, up to an
# hour on two cores; DEMO_MODEL=tools/demo/model writes it where the repository keeps it.
# `demo-check` tells how much of the page the model in DEMO_MODEL gives back.

DEMO_MODEL  ?= $(O)/demo/model
DEMO_PYTHON := $(O)/demo/venv/bin/python

$(DEMO_PYTHON): tools/demo/requirements.txt
	$(say) VENV $(O)/demo/venv
	$(Q)python3 -m venv $(O)/demo/venv
	$(Q)$(O)/demo/venv/bin/pip install --quiet --requirement tools/demo/requirements.txt
	$(Q)touch $@

.PHONY: demo-train demo-check
demo-train: $(DEMO_PYTHON) ## train the built-in model again (half an hour)
	$(Q)mkdir -p $(O)/demo
	$(Q)$(DEMO_PYTHON) tools/demo/train.py --out $(DEMO_MODEL) --state $(O)/demo/state.pt
	$(Q)rm -f $(O)/demo/state.pt
	$(Q)cmp $(DEMO_MODEL)/model.safetensors tools/demo/model/model.safetensors \
		&& echo "the same weights, byte for byte, as in tools/demo/model" || true

demo-check: $(DEMO_PYTHON)
	$(Q)$(DEMO_PYTHON) tools/demo/train.py --out $(DEMO_MODEL) --check
