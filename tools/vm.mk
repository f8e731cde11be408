# Tests on a pure cgroup v2 host with systemd: a virtual machine that has this one's files.

VM_CACHE ?= .vm

test-vm: install ## the cgroup v2 and systemd tests alone, in a virtual machine (no KVM needed)
	tools/debian-packages vm
	$(BIN)/python tools/vm/guest.py run $(VM_CACHE) $(VM_TESTS)
