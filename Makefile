# Sluice: one gate in front of every GPU network. `make help` lists the targets.
SHELL := /bin/bash
CC ?= gcc
BUILD ?= build
V ?= 0
PREFIX ?= /usr/local
PKGS := libnghttp2 libcurl jansson hiredis openssl yaml-0.1 expat
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
# libmicrohttpd is linked statically so that its recv() passes core/http_guard (see core/http_socket.h).
MHD_LIBS := -Wl,--wrap=recv,--wrap=epoll_ctl,--wrap=epoll_wait -l:libmicrohttpd.a -lgnutls -lpthread
WARN := -Wall -Wextra -Wshadow -Wconversion -Werror
OPT ?= -O2 -g
SAN ?=
CFLAGS_ALL := -std=c17 -D_GNU_SOURCE -I. $(WARN) $(OPT) $(SAN) -fno-omit-frame-pointer -fstack-protector-strong \
  -MMD -MP $(PKG_CFLAGS) $(CFLAGS)
LDLIBS_ALL := $(MHD_LIBS) $(PKG_LIBS) -lpthread -lm
# The probe and the worker run on machines that have a driver and little else: static but for the C library, which
# dlopen and name look-ups need. adapters/native/portable is what libcurl.a wants beside.
LDLIBS_PROBE := -l:libcrypto.a -l:libjansson.a -l:libyaml.a -ldl -lpthread -lm
LDLIBS_WORKER := -l:libcurl.a -l:libnghttp2.a -l:libssl.a -l:libcrypto.a -l:libjansson.a -l:libyaml.a -ldl \
  -lpthread -lm
quiet = $(if $(filter 1,$(V)),,@printf '  %-5s %s\n' $(1) $(2);)

LIBS_IN_ORDER := gateway adapters scheduler probes pricing core
MAINS := gateway/sluiced.c adapters/native/sluice_worker.c probes/sluice_probe.c gateway/cli/sluice.c
PROGRAMS := $(BUILD)/sluiced $(BUILD)/sluice-worker $(if $(wildcard probes/sluice_probe.c),$(BUILD)/sluice-probe) \
  $(if $(wildcard gateway/cli/sluice.c),$(BUILD)/sluice)
lib_sources = $(filter-out $(MAINS),$(wildcard $(1)/*.c $(1)/*/*.c))
ARCHIVES := $(foreach l,$(LIBS_IN_ORDER),$(if $(call lib_sources,$(l)),$(BUILD)/lib$(l).a))
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
# The CUDA compiler: the machine's own, else the one that deploy/deps.sh --cuda installs. Kernels and their emulation are
# compiled once, for the sanitizers' builds too.
NVCC ?= $(firstword $(if $(CUDA_HOME),$(wildcard $(CUDA_HOME)/bin/nvcc)) $(shell command -v nvcc 2>/dev/null) \
  $(wildcard .cuda/venv/lib/python3*/site-packages/nvidia/cu*/bin/nvcc))
CUDA_ARCHS ?= 80 86 89 90 100 120
KERNEL_SOURCES := $(wildcard probes/cuda/*.cu probes/cuda/*.cuh) probes/cuda/kernels.h probes/primitives.h
FATBIN := build/probes/cuda/kernels.fatbin
EMULATION := build/tests/cuda_emu/kernels.o build/tests/cuda_emu/emu.o
# A driver over the emulation, for what loads libcuda.so.1 and its like.
FAKE_CUDA := build/tests/fake_cuda/libfake_cuda.so
FAKED := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(shell grep -l fake_cuda/fake_cuda.h tests/unit/test_*.c 2>/dev/null))
EMULATED := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(shell grep -l cuda_emu/emu.h tests/unit/test_*.c 2>/dev/null))
ATTACKS := $(patsubst tests/attacks/%.c,$(BUILD)/attacks/%,$(wildcard tests/attacks/attack_*.c tests/attacks/cheat.c))
ATTACK_PARTS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(wildcard tests/attacks/attack_*.c) tests/attacks/cheat.c, \
  $(wildcard tests/attacks/*.c)))
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
LUA := $(wildcard */*.lua */*/*.lua)
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help all run test check check-asan check-tsan check-gpu check-attacks integration lint format bench fuzz install deps clean
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n",$$1,$$2}' $(firstword $(MAKEFILE_LIST))

all: $(PROGRAMS) ## build the programs into build/

run: deps ## everything: dependencies, build, gateway, three local workers with a real model
	@$(MAKE) --no-print-directory all
	@bash deploy/quickstart.sh

test: deps ## everything: dependencies, build, all tests
	@$(MAKE) --no-print-directory all check check-asan check-tsan check-attacks integration lint
	@FUZZ_RUNS=5000 $(MAKE) --no-print-directory fuzz

deps: ## install what the build and the tests need (apt packages, Python venv for tests)
	@bash deploy/deps.sh

ifeq ($(shell command -v $(CXX)),)
UNIT := $(filter-out $(EMULATED) $(FAKED),$(UNIT))
$(if $(EMULATED),$(info no C++ compiler ($(CXX)): without the tests of the CUDA kernels))
endif
check: $(UNIT) ## unit tests
	@bash tests/run_units.sh $(UNIT)

check-asan: ## unit tests under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory check BUILD=build-asan OPT='-O1 -g' SAN='-fsanitize=address,undefined -fno-sanitize-recover=all'

check-tsan: ## unit tests under ThreadSanitizer
	@$(MAKE) --no-print-directory check BUILD=build-tsan OPT='-O1 -g' SAN='-fsanitize=thread'

check-attacks: all $(ATTACKS) ## every cheat against the verifier: each caught within its bound, no honest one refused
	@bash tests/attacks/run.sh $(BUILD)

integration: all $(if $(shell command -v $(CXX)),$(FAKE_CUDA)) $(BUILD)/admit $(BUILD)/conformance $(BUILD)/tests/door_tool ## pytest against real processes
	@$(PY) -m pytest -q tests/integration $(PYTEST_ARGS)

check-leases: all ## 10,000 leases over all simulated networks, every fault on, gateways killed at random (about 10 min)
	@SLUICE_CHAOS_LEASES=$${SLUICE_CHAOS_LEASES:-10000} SLUICE_CHAOS_VERBOSE=1 $(PY) -m pytest -q -s tests/integration/test_lease_chaos.py

check-gpu: ## this machine's GPU: every kernel and route, sanitizers, rates, 100 admissions
	@bash tests/gpu/check_gpu.sh

fuzz: ## each fuzz target for FUZZ_SECONDS (default 20)
	@bash tests/fuzz/run.sh

bench: all $(BENCHES) ## gateway, nginx and HAProxy side by side over the same upstream
	@bash tests/bench/run.sh

lint: ## clang build, formatter check, includes that point up
	@bash tests/lint.sh

format: ## format all C sources in place
	@clang-format-14 -i $$(git ls-files '*.c' '*.h')

install: all ## install the programs under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin && install -m 0755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin/

clean: ## remove what was built
	rm -rf build build-asan build-tsan build-clang build-fuzz

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call quiet,CC,$<)$(CC) $(CFLAGS_ALL) -c $< -o $@

define archive_rule
$(BUILD)/lib$(1).a: $(patsubst %.c,$(BUILD)/%.o,$(call lib_sources,$(1)))
	@mkdir -p $$(@D)
	$$(call quiet,AR,$$@)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach l,$(LIBS_IN_ORDER),$(eval $(call archive_rule,$(l))))
# .lua and .json files are built into the objects with .incbin (core/embed.h), which -MMD does not see.
$(patsubst %.c,$(BUILD)/%.o,$(shell grep -l -w EMBED */*.c */*/*.c 2>/dev/null)): $(LUA) $(wildcard gateway/*.json gateway/*.html)

ifneq ($(NVCC),)
$(BUILD)/probes/cuda/fatbin.o: $(FATBIN)
$(BUILD)/probes/cuda/fatbin.o: CFLAGS_ALL += -DPROBE_FATBIN='"$(FATBIN)"'
else
$(BUILD)/probes/cuda/fatbin.o: no_nvcc
.INTERMEDIATE: no_nvcc
no_nvcc:
	@echo '  no nvcc: sluice-probe is built without CUDA kernels (deploy/deps.sh --cuda installs a compiler)'
endif
$(FATBIN): $(KERNEL_SOURCES)
	@mkdir -p $(@D)
	$(call quiet,NVCC,probes/cuda/kernels.cu)$(NVCC) -fatbin -std=c++17 -O3 -I. -Werror all-warnings --threads 2 \
	  $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -gencode arch=compute_80,code=compute_80 \
	  $(NVCCFLAGS) -o $@ probes/cuda/kernels.cu
CXXFLAGS_EMULATION := -std=c++17 -O3 -g -fPIC -I. -Wall -Wextra -Werror -Wno-unknown-pragmas -fno-omit-frame-pointer
build/tests/cuda_emu/kernels.o: $(KERNEL_SOURCES) tests/cuda_emu/emulation.hpp
	@mkdir -p $(@D)
	$(call quiet,CXX,probes/cuda/kernels.cu)$(CXX) $(CXXFLAGS_EMULATION) -include tests/cuda_emu/emulation.hpp -x c++ \
	  -c probes/cuda/kernels.cu -o $@
build/tests/cuda_emu/emu.o: $(wildcard tests/cuda_emu/*) probes/cuda/kernels.h
	@mkdir -p $(@D)
	$(call quiet,CXX,tests/cuda_emu/emu.cpp)$(CXX) $(CXXFLAGS_EMULATION) -c tests/cuda_emu/emu.cpp -o $@

$(BUILD)/sluiced: $(BUILD)/gateway/sluiced.o $(ARCHIVES)
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ $(LDLIBS_ALL)
$(BUILD)/sluice-worker: $(BUILD)/adapters/native/sluice_worker.o $(BUILD)/adapters/native/portable/curl_parts.o \
  $(filter-out %libgateway.a,$(ARCHIVES))
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ $(LDLIBS_WORKER)
$(BUILD)/sluice-probe: $(BUILD)/probes/sluice_probe.o $(BUILD)/libprobes.a $(BUILD)/libcore.a
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ $(LDLIBS_PROBE)
$(BUILD)/admit: $(BUILD)/tests/gpu/admit.o $(BUILD)/libprobes.a $(BUILD)/libcore.a
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ $(LDLIBS_PROBE)
$(BUILD)/sluice: $(BUILD)/gateway/cli/sluice.o $(ARCHIVES)
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ $(LDLIBS_ALL)
$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ -lcmocka $(LDLIBS_ALL)
$(BUILD)/tests/test_door_flow: | $(BUILD)/sluice-worker $(BUILD)/sluice-probe
$(BUILD)/conformance: $(BUILD)/tests/conformance/drive.o $(ARCHIVES)
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ $(LDLIBS_ALL)
$(FAKE_CUDA): $(wildcard tests/fake_cuda/*) probes/cuda/kernels.h $(EMULATION)
	@mkdir -p $(@D)
	$(call quiet,LD,$@)$(CC) -std=c17 -D_GNU_SOURCE -I. $(WARN) -O2 -g -fPIC -shared -fno-omit-frame-pointer -o $@ \
	  $(wildcard tests/fake_cuda/*.c) $(EMULATION) -lstdc++
$(FAKED): | $(FAKE_CUDA)
$(EMULATED): $(EMULATION)
$(BUILD)/tests/kernels_on_gpu: $(BUILD)/tests/unit/test_cuda_kernels.o $(BUILD)/tests/cuda_emu/on_gpu.o $(ARCHIVES)
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ -lcmocka $(LDLIBS_ALL)
$(EMULATED): LDLIBS_ALL += -lstdc++
$(BUILD)/attacks/%: $(BUILD)/tests/attacks/%.o $(ATTACK_PARTS) $(ARCHIVES)
	@mkdir -p $(@D)
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ $(LDLIBS_ALL)
$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(call quiet,LD,$@)$(CC) $(SAN) -o $@ $^ $(LDLIBS_ALL)

.PRECIOUS: $(BUILD)/%.o
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
