# SPDX-License-Identifier: BSD-2-Clause
# culvert: build, run, test, measure. `make help` lists the targets.

BUILD ?= build
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG ?= clang
BPFTOOL ?= $(firstword $(shell command -v bpftool 2>/dev/null) /usr/sbin/bpftool)
WERROR ?= -Werror
FUZZ_SECONDS ?= 30
VERSION := 0.1.0

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wundef -Wvla -Wformat=2 -Wno-format-nonliteral -Wimplicit-fallthrough $(WERROR)
# What the OpenSSF's guide for compilers advises, as far as this compiler has it.
supported = $(foreach flag,$(1),$(shell $(CC) -Werror $(flag) -S -x c -o /dev/null \
	/dev/null 2>/dev/null && echo $(flag)))
HARDEN_CFLAGS := -O2 -fPIE -D_FORTIFY_SOURCE=3 $(call supported,\
	-fstack-clash-protection -fcf-protection=full -mbranch-protection=standard \
	-ftrivial-auto-var-init=zero \
	-fno-delete-null-pointer-checks -fno-strict-overflow)
HARDEN_LDFLAGS := -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code

BASE_CFLAGS := -std=gnu17 -D_GNU_SOURCE -DCULVERT_VERSION='"$(VERSION)"' \
	-Iuser -Iinclude -isystem $(BUILD)/kern -g -fno-omit-frame-pointer -fstack-protector-strong \
	-MMD -MP $(WARN)
LIBS := -Wl,--as-needed -lbpf -luring -lnftnl -lmnl -lssl -lcrypto -linih -ljansson -lseccomp -lsqlite3 -lpq -lhiredis -lunistring -lpthread

# Rooms, lowest first. A file with main() is a program, not part of a room.
ROOMS := base loop crypto stun store auth transport engine pair conf control turn \
	broker exit ctl client main
SOURCES := $(foreach room,$(ROOMS),$(sort $(wildcard user/$(room)/*.c)))
MAINS := user/main/culvertd_main.c user/client/culvert_main.c \
	user/ctl/culvertctl_main.c
ROOM_SOURCES := $(filter-out $(MAINS),$(SOURCES))
PROGRAMS := $(BUILD)/culvertd $(BUILD)/culvert $(BUILD)/culvertctl
# What a foreign program links for the TURN-TCP client library.
CLIENT_ROOMS := base loop crypto stun transport engine pair client

KERN_SOURCES := $(sort $(wildcard kern/*.bpf.c))
KERN_OBJECTS := $(KERN_SOURCES:%.c=$(BUILD)/%.o)
SKELETONS := $(KERN_SOURCES:kern/%.bpf.c=$(BUILD)/kern/%.skel.h)
# Programs that run the BPF objects by themselves (root).
BPF_TEST_SOURCES := $(sort $(wildcard selftests/bpf/test_*.c))
BPF_TEST_PROGRAMS := $(BPF_TEST_SOURCES:selftests/bpf/%.c=$(BUILD)/bpf/%)
UNIT_SOURCES := $(sort $(wildcard selftests/unit/test_*.c))
UNIT_PROGRAMS := $(UNIT_SOURCES:selftests/unit/%.c=$(BUILD)/unit/%)
FUZZ_SOURCES := $(sort $(wildcard selftests/fuzz/fuzz_*.c))
FUZZ_PROGRAMS := $(FUZZ_SOURCES:selftests/fuzz/%.c=$(BUILD)/fuzz/%)
NET_SOURCES := $(sort $(wildcard selftests/net/*.c))
NET_LIB_OBJECTS := $(patsubst %.c,$(BUILD)/release/%.o,\
	$(sort $(wildcard selftests/net/lib/*.c)))
NET_PROGRAMS := $(NET_SOURCES:selftests/net/%.c=$(BUILD)/net-tools/%)
BENCH_SOURCES := $(sort $(wildcard selftests/bench/*.c))
BENCH_LIB_OBJECTS := $(patsubst %.c,$(BUILD)/release/%.o,\
	$(sort $(wildcard selftests/bench/lib/*.c)))
BENCH_PROGRAMS := $(BENCH_SOURCES:selftests/bench/%.c=$(BUILD)/bench-tools/%)

WRAP := malloc calloc realloc strdup strndup
WRAP_FLAGS := $(WRAP:%=-Wl,--wrap=%)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all

# `make V=1` shows whole commands, otherwise a word and the file; -s nothing.
ifeq ($(V),)
Q := @
ifeq ($(findstring s,$(firstword -$(MAKEFLAGS))),)
say = @printf '  %-4s %s\n' $(1) $@
endif
endif
# Every core, unless the caller has said how many.
ALL_CORES = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: all help run check check-long check-build lint format kern unit bpf net \
	net-tools qemu fuzz fuzz-build bench bench-quick bench-packets bench-exits bench-tools crossover demo deps install \
	clean
.DELETE_ON_ERROR:

all: $(PROGRAMS) $(BUILD)/libculvert.a ## build the programs and the client library
	@:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

run: ## build and run culvertd here with a generated configuration
	@tools/deps build
	@$(MAKE) --no-print-directory $(ALL_CORES) all
	@tools/run $(BUILD)

check: ## install what tests need and run them all
	@tools/deps build check browser servers routing
	@tools/check $(BUILD)

check-long: ## the same at nightly length: 10,000 joins, half an hour of load an engine
	@tools/deps build check browser servers routing
	@CULVERT_LONG=1 TEST_TIMEOUT=7200 tools/check $(BUILD)

demo: ## relay 1 GiB each way through three namespaces (root)
	@tools/deps build bench
	@$(MAKE) --no-print-directory $(ALL_CORES) all bench-tools
	@BUILD=$(BUILD) python3 selftests/bench/demo.py

bench: ## measure culvert beside HAProxy, nginx, coturn, babeld and BIRD (root)
	@tools/deps build check bench routing
	@$(MAKE) --no-print-directory $(ALL_CORES) all bench-tools
	@BUILD=$(BUILD) python3 selftests/bench/bench.py
	@BUILD=$(BUILD) python3 selftests/bench/exit_cost.py --quick

bench-quick: ## the same, short, within 5 minutes (root)
	@tools/deps build bench
	@$(MAKE) --no-print-directory $(ALL_CORES) all bench-tools
	@BUILD=$(BUILD) python3 selftests/bench/bench.py --quick

bench-packets: ## datagrams of UDP allocations per CPU-second beside coturn (root)
	@tools/deps build check bench
	@$(MAKE) --no-print-directory $(ALL_CORES) all bench-tools
	@BUILD=$(BUILD) python3 selftests/bench/packets.py

bench-exits: ## cost of choosing an exit, fail-over, beside ip rule, babeld, BIRD (root)
	@tools/deps build check bench routing
	@$(MAKE) --no-print-directory $(ALL_CORES) all
	@BUILD=$(BUILD) python3 selftests/bench/exit_cost.py

crossover: ## plot where one path beats two over loss and delay (root, slow)
	@tools/deps build check bench
	@$(MAKE) --no-print-directory $(ALL_CORES) all bench-tools
	@BUILD=$(BUILD) python3 selftests/bench/crossover.py

lint: $(SKELETONS) ## format, includes, static analysis, manuals
	@tools/lint $(BUILD)

format: ## rewrite the sources in the house format
	tools/files '*.c' '*.h' | xargs clang-format -i

kern: $(KERN_OBJECTS) ## build the BPF programs alone

bpf: $(BPF_TEST_PROGRAMS) ## run the BPF programs on crafted packets (root)
	@tools/taprun $(BPF_TEST_PROGRAMS)

unit: $(UNIT_PROGRAMS) ## build and run the unit tests under sanitizers
	@tools/taprun $(UNIT_PROGRAMS)

net: all net-tools ## run the network tests (root for the namespaces)
	@BUILD=$(BUILD) tools/taprun $(sort $(wildcard selftests/net/*.py))

net-tools: $(NET_PROGRAMS)

# What runs in the guests.
QEMU_PROGRAMS = $(BPF_TEST_PROGRAMS) $(BUILD)/bpf/verify $(BUILD)/unit/test_ktls_kernel

qemu: all bench-tools kern $(QEMU_PROGRAMS) ## boot other kernels, try culvert there
	@BUILD=$(BUILD) tools/taprun $(sort $(wildcard selftests/qemu/*.py))

fuzz-build: $(FUZZ_PROGRAMS)

fuzz: $(FUZZ_PROGRAMS) ## run each fuzzer for FUZZ_SECONDS (make fuzz FUZZ_SECONDS=600)
	@tools/fuzz $(BUILD) $(FUZZ_SECONDS)

bench-tools: $(BENCH_PROGRAMS)

deps: ## install everything that building, testing and measuring need
	@tools/deps build check bench

PREFIX ?= /usr/local
install: all ## install programs, manuals and the client library to PREFIX
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin \
		$(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include/culvert \
		$(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/man/man5 \
		$(DESTDIR)$(PREFIX)/share/man/man7 \
		$(DESTDIR)$(PREFIX)/share/man/man8
	install -m 755 $(BUILD)/culvertd $(BUILD)/culvertctl \
		$(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(BUILD)/culvert $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(BUILD)/libculvert.a $(DESTDIR)$(PREFIX)/lib
	install -m 644 include/culvert/client.h \
		$(DESTDIR)$(PREFIX)/include/culvert
	install -m 644 user/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 user/man/*.5 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 user/man/*.7 $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 644 user/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8

clean: ## remove what was built
	rm -rf $(BUILD)

# BPF programs: type-based alias analysis breaks packet access (a checksum went
# wrong by it), and the third instruction set has atomic exchange.
KERN_CFLAGS := -target bpf -mcpu=v3 -O2 -g -std=gnu17 -fno-strict-aliasing \
	-Wall -Wextra $(WERROR) -Iinclude -Ikern \
	-I/usr/include/$(shell $(CC) -print-multiarch 2>/dev/null) -MMD -MP
vpath %.bpf.c kern selftests/bpf
$(BUILD)/kern/%.bpf.o: %.bpf.c Makefile
	$(call say,BPF)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(KERN_CFLAGS) -c -o $@ $<
$(BUILD)/kern/%.skel.h: $(BUILD)/kern/%.bpf.o
	$(call say,GEN)
	@# What is generated is not for our static analysis to judge.
	$(Q){ echo '/* NOLINTBEGIN */' && $(BPFTOOL) gen skeleton $< name $*_bpf && \
		echo '/* NOLINTEND */'; } >$@
-include $(KERN_OBJECTS:%.o=%.d) $(BUILD)/kern/sums.bpf.d

# One object tree a flavour: objects($1) of the rooms, compiled with $2 and $3.
define FLAVOUR
$(1)_OBJECTS := $$(ROOM_SOURCES:%.c=$$(BUILD)/$(1)/%.o)
$$(BUILD)/$(1)/%.o: %.c Makefile
	$$(call say,CC)
	@mkdir -p $$(@D)
	$$(Q)$(2) $$(BASE_CFLAGS) $(3) -c -o $$@ $$<
$$(BUILD)/$(1)/rooms.a: $$($(1)_OBJECTS)
	@rm -f $$@
	@ar rcs $$@ $$^ || { df -h $$(@D); false; }
-include $$(SOURCES:%.c=$$(BUILD)/$(1)/%.d)
endef
$(eval $(call FLAVOUR,release,$(CC),$(HARDEN_CFLAGS)))
$(eval $(call FLAVOUR,clang,$(CLANG),-O1))
$(eval $(call FLAVOUR,asan,$(CC),-O1 $(SANITIZE)))
$(eval $(call FLAVOUR,fuzzer,$(CLANG),-O1 $(SANITIZE) -fsanitize=fuzzer-no-link))
# Who includes the skeletons: as system headers they are not in the compiler's own
# dependency files.
$(foreach flavour,release clang asan fuzzer,$(patsubst %.c,\
	$(BUILD)/$(flavour)/%.o,$(wildcard user/broker/*.c))): $(SKELETONS)

$(BUILD)/culvertd: $(BUILD)/release/user/main/culvertd_main.o
$(BUILD)/culvert: $(BUILD)/release/user/client/culvert_main.o
$(BUILD)/culvertctl: $(BUILD)/release/user/ctl/culvertctl_main.o
$(PROGRAMS): $(BUILD)/release/rooms.a
	$(call say,LD)
	$(Q)$(CC) $(HARDEN_LDFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) \
		$(BUILD)/release/rooms.a $(LIBS)

$(BUILD)/asan/culvertd: $(BUILD)/asan/user/main/culvertd_main.o
$(BUILD)/asan/culvert: $(BUILD)/asan/user/client/culvert_main.o
$(BUILD)/asan/culvertctl: $(BUILD)/asan/user/ctl/culvertctl_main.o
$(PROGRAMS:$(BUILD)/%=$(BUILD)/asan/%): $(BUILD)/asan/rooms.a
	$(call say,LD)
	$(Q)$(CC) $(SANITIZE) -o $@ $(filter %.o,$^) $(BUILD)/asan/rooms.a $(LIBS)

$(BUILD)/libculvert.a: $(filter \
		$(CLIENT_ROOMS:%=$(BUILD)/release/user/%/%),$(release_OBJECTS))
	@rm -f $@
	@ar rcs $@ $^ || { df -h $(@D); false; }

check-build: $(PROGRAMS) $(BUILD)/clang/rooms.a \
	$(MAINS:%.c=$(BUILD)/clang/%.o) \
	$(PROGRAMS:$(BUILD)/%=$(BUILD)/asan/%)

# A unit test is one program; every one can make allocations fail.
$(BUILD)/asan/selftests/%.o: selftests/%.c Makefile
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE_CFLAGS) -O1 $(SANITIZE) -Iselftests -c -o $@ $<
$(BUILD)/unit/%: $(BUILD)/asan/selftests/unit/%.o \
		$(BUILD)/asan/selftests/unit/failalloc.o \
		$(BUILD)/asan/selftests/unit/sockmap_fds.o $(BUILD)/asan/rooms.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(SANITIZE) $(WRAP_FLAGS) -o $@ $^ $(LIBS) -lcmocka
$(BUILD)/asan/selftests/unit/sockmap_fds.o: $(SKELETONS)
-include $(UNIT_SOURCES:%.c=$(BUILD)/asan/%.d) \
	$(BUILD)/asan/selftests/unit/sockmap_fds.d

# Plain objects: a sanitizer does not see into the kernel.
$(BUILD)/bpf/%: selftests/bpf/%.c $(BUILD)/release/rooms.a Makefile $(SKELETONS)
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE_CFLAGS) -O2 -Iselftests -MF $@.d -o $@ $< \
		$(BUILD)/release/rooms.a $(LIBS) -lcmocka
-include $(BPF_TEST_PROGRAMS:%=%.d)

$(BUILD)/fuzz/%: selftests/fuzz/%.c $(BUILD)/fuzzer/rooms.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(filter-out -MMD -MP,$(BASE_CFLAGS)) -O1 $(SANITIZE) \
		-fsanitize=fuzzer -o $@ $^ $(LIBS)

# What the network tests need in C: the impairment box, the join load, sums.
$(BUILD)/release/selftests/net/%.o: selftests/net/%.c Makefile
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE_CFLAGS) -O2 -Iselftests/net -c -o $@ $<
$(BUILD)/release/selftests/net/sums.o: $(BUILD)/kern/sums.skel.h
$(BUILD)/net-tools/%: $(BUILD)/release/selftests/net/%.o \
		$(NET_LIB_OBJECTS) $(BUILD)/release/rooms.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LIBS)
-include $(NET_SOURCES:%.c=$(BUILD)/release/%.d) $(NET_LIB_OBJECTS:%.o=%.d)

# The load generator and its peer share what lies in selftests/bench/lib.
$(BUILD)/release/selftests/bench/%.o: selftests/bench/%.c Makefile
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE_CFLAGS) -O2 -Iselftests/bench -c -o $@ $<
$(BUILD)/bench-tools/%: $(BUILD)/release/selftests/bench/%.o \
		$(BENCH_LIB_OBJECTS) $(BUILD)/release/rooms.a
	$(call say,LD)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LIBS)
-include $(BENCH_SOURCES:%.c=$(BUILD)/release/%.d) $(BENCH_LIB_OBJECTS:%.o=%.d)

.SECONDARY:
