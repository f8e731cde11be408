# Tests on a pure cgroup v2 host with systemd: a virtual machine made of Debian packages.

VM_CACHE ?= .vm
VM_PACKAGES := qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs kmod busybox-static

test-vm: install ## the cgroup v2 and systemd tests, in a virtual machine (no KVM needed)
	@missing=""; for package in $(VM_PACKAGES); do \
	    dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed \
	    || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
	$(BIN)/python tools/vm/guest.py run $(VM_CACHE) $(VM_TESTS)
