# Looking longer than `make test` does for input that the runtime does not take well.

FUZZ_SECONDS ?= 120
FUZZ_TARGETS ?= config process resources passwd mountinfo

.PHONY: fuzz
fuzz: install ## the runtime's parsers and its executor against random and guided input
	tools/debian-packages test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	SAMPAN_FUZZ=20 tools/in-namespaces $(BIN)/python -m pytest -q --timeout 3600 tests/fuzz/runtime
	for target in $(FUZZ_TARGETS); do \
		$(BIN)/python -m tests.fuzz.runtime.guided $$target .fuzz/$$target \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -artifact_prefix=.fuzz/ || exit 1; \
	done
