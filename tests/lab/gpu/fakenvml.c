// SPDX-FileCopyrightText: gpufleet.llamacpp contributors
// SPDX-License-Identifier: GPL-3.0-or-later
//
// A stand-in for NVIDIA's management library (libnvidia-ml.so.1) for hosts without a GPU.
// It answers what nvidia-ml-py asks, from a text file that is read again at every call (see README.md).
// It proves how GPUs are managed; it holds no CUDA, and nothing computes on it.
//
//   gcc -std=c11 -Wall -Wextra -Werror -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fakenvml.c

#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_GPUS 16u
#define MAX_PROCESSES 128u
#define MIB (1024ull * 1024ull)
#define CUDA_MIB 512u // what CUDA takes on each GPU beside what the program asks for
#define NO_MIG_ID 0xFFFFFFFFu
#define MEMORY_V2 0x02000028u
#define LINKS_TO_EACH_PEER 6u // four H200 NVL on one bridge: 18 links, 6 to each of the other three
#define LINKS_PER_GPU 18u
#define FIELD_RECOVERY_ACTION 230u

enum { AUTO_OFF = -1, AUTO_RSS = -2 };

// Return codes of nvml.h.
enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7,
       VERSION_MISMATCH = 25, UNKNOWN = 999 };

struct gpu {
    char uuid[80], bus[32], name[96]; // 96: NVML's own limit for a device name
    unsigned long long total, reserved, used; // MiB
    unsigned util;
    int mig, ecc, rc; // mig, ecc: 1 on, 0 off, -1 not supported
    unsigned compute_mode;
    unsigned long long corrected, uncorrected;
    unsigned recovery, unlinked; // unlinked: bit i is set when there is no NVLink to GPU i
    unsigned remapped[4]; // rows for corrected errors, for uncorrected ones, whether more wait for a reset, or failed
};

struct process { unsigned gpu, pid; unsigned long long mib; };

struct state {
    char driver[80], nvml[80];
    int cuda, init_rc;
    unsigned hang, count, process_count;
    struct gpu gpus[MAX_GPUS];
    struct process processes[MAX_PROCESSES];
    long long auto_mib; // or one of the two below
};

// The structures of nvml.h that the calls below fill.
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
struct utilization { unsigned gpu, memory; };
struct process_info { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
struct pci_info { char legacy[16]; unsigned domain, bus, device, device_id, subsystem_id; char bus_id[32]; };
struct field_value { unsigned id, scope; long long timestamp, latency; int type, rc; unsigned long long value; };

typedef uintptr_t handle; // an NVML handle is opaque: ours is the index + 1

static int initialized;

static void defaults(struct state *s)
{
    static const char *const buses[] = {"00000000:1A:00.0", "00000000:3D:00.0", "00000000:9C:00.0", "00000000:DE:00.0"};
    memset(s, 0, sizeof *s);
    strcpy(s->driver, "590.48.01");
    strcpy(s->nvml, "13.590.48.01");
    s->cuda = 13010;
    s->auto_mib = AUTO_OFF;
    s->count = 4;
    for (unsigned i = 0; i < MAX_GPUS; i++) {
        struct gpu *g = &s->gpus[i];
        snprintf(g->uuid, sizeof g->uuid, "GPU-%xf5a1c00-fa4e-4e56-8d4c-00000000000%x", i, i);
        if (i < 4)
            snprintf(g->bus, sizeof g->bus, "%s", buses[i]);
        else
            snprintf(g->bus, sizeof g->bus, "00000001:%02X:00.0", 16 + i);
        strcpy(g->name, "NVIDIA H200 NVL");
        g->total = 143771;
        g->reserved = 625;
        g->ecc = 1;
    }
}

// The GPUs, as bits, that a process' CUDA_VISIBLE_DEVICES names, by CUDA's rule: indexes or UUIDs (or unique beginnings
// of them) up to the first one that does not exist. Without the variable, or unreadable: all.
static unsigned visible_to(const struct state *s, const char *pid)
{
    static const char key[] = "CUDA_VISIBLE_DEVICES=";
    char path[64], *entry = NULL, *save = NULL;
    size_t size = 0;
    unsigned mask = ~0u;
    snprintf(path, sizeof path, "/proc/%.20s/environ", pid);
    FILE *f = fopen(path, "re");
    while (f && getdelim(&entry, &size, 0, f) > 0) {
        if (strncmp(entry, key, sizeof key - 1) != 0)
            continue;
        mask = 0;
        for (char *t = strtok_r(entry + sizeof key - 1, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
            unsigned found = MAX_GPUS, matches = 0;
            char *end;
            unsigned long index = strtoul(t, &end, 10);
            if (isdigit((unsigned char)*t) && !*end && index < s->count) {
                found = (unsigned)index;
                matches = 1;
            }
            for (unsigned i = 0; i < s->count && strncmp(t, "GPU-", 4) == 0; i++)
                if (strncasecmp(s->gpus[i].uuid, t, strlen(t)) == 0) {
                    found = i;
                    matches++;
                }
            if (matches != 1)
                break;
            mask |= 1u << found;
        }
        break;
    }
    if (f)
        fclose(f);
    free(entry);
    return mask;
}

// MiB of memory that a process really holds, on the CPU.
static unsigned long long resident(const char *pid)
{
    char path[64], line[128] = "";
    unsigned long long pages = 0;
    snprintf(path, sizeof path, "/proc/%.20s/statm", pid);
    FILE *f = fopen(path, "re");
    if (f && fgets(line, sizeof line, f))
        sscanf(line, "%*u %llu", &pages);
    if (f)
        fclose(f);
    return pages * (unsigned long long)sysconf(_SC_PAGESIZE) / MIB;
}

// Puts every live process named llama-server on the GPUs that it sees, as a driver would.
static void find_servers(struct state *s)
{
    DIR *proc = s->auto_mib == AUTO_OFF ? NULL : opendir("/proc");
    for (struct dirent *d; proc && (d = readdir(proc));) {
        char path[64], stat[64] = "";
        if (!isdigit((unsigned char)d->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%.20s/stat", d->d_name);
        FILE *f = fopen(path, "re");
        if (!f)
            continue;
        char *line = fgets(stat, sizeof stat, f), *name = line ? strstr(line, " (llama-server) ") : NULL;
        fclose(f);
        if (!name || strchr("ZX", name[16])) // a dead process holds no memory
            continue;
        unsigned mask = visible_to(s, d->d_name), seen = 0;
        for (unsigned i = 0; i < s->count; i++)
            seen += mask >> i & 1u;
        unsigned long long mib = (unsigned long long)s->auto_mib;
        if (s->auto_mib == AUTO_RSS && seen)
            mib = resident(d->d_name) / seen + CUDA_MIB;
        for (unsigned i = 0; i < s->count && s->process_count < MAX_PROCESSES; i++)
            if (mask & (1u << i)) {
                s->processes[s->process_count++] =
                    (struct process){i, (unsigned)strtoul(d->d_name, NULL, 10), mib};
                s->gpus[i].used += mib;
            }
    }
    if (proc)
        closedir(proc);
}

// 1 when the line is understood.
static int read_line(struct state *s, const char *line)
{
    struct gpu g = {0};
    struct process p;
    unsigned a, b;
    if (line[0] == '#' || line[strspn(line, " \t\n")] == '\0')
        return 1;
    if (sscanf(line, "driver %79s", s->driver) == 1 || sscanf(line, "nvml %79s", s->nvml) == 1 ||
        sscanf(line, "cuda %d", &s->cuda) == 1 || sscanf(line, "init_rc %d", &s->init_rc) == 1 ||
        sscanf(line, "hang %u", &s->hang) == 1 || (sscanf(line, "auto %lld", &s->auto_mib) == 1 && s->auto_mib >= 0))
        return 1;
    if (strcmp(line, "auto off\n") == 0 || strcmp(line, "auto rss\n") == 0) {
        s->auto_mib = line[5] == 'o' ? AUTO_OFF : AUTO_RSS;
        return 1;
    }
    if (sscanf(line, "count %u", &a) == 1 && a <= MAX_GPUS) {
        s->count = a;
    } else if (sscanf(line, "gpu %u %79s %31s %llu %llu %llu %u %d %d %u %d %95[^\n]", &a, g.uuid, g.bus, &g.total,
                      &g.reserved, &g.used, &g.util, &g.mig, &g.ecc, &g.compute_mode, &g.rc, g.name) == 12 &&
               a < MAX_GPUS) {
        s->gpus[a] = g;
        s->count = a < s->count ? s->count : a + 1;
    } else if (sscanf(line, "proc %u %u %llu", &p.gpu, &p.pid, &p.mib) == 3 && p.gpu < MAX_GPUS &&
               s->process_count < MAX_PROCESSES) {
        s->processes[s->process_count++] = p;
    } else if (sscanf(line, "errors %u %llu %llu %u", &a, &g.corrected, &g.uncorrected, &g.recovery) == 4 &&
               a < MAX_GPUS) {
        s->gpus[a].corrected = g.corrected;
        s->gpus[a].uncorrected = g.uncorrected;
        s->gpus[a].recovery = g.recovery;
    } else if (sscanf(line, "remapped %u %u %u %u %u", &a, &g.remapped[0], &g.remapped[1], &g.remapped[2],
                      &g.remapped[3]) == 5 && a < MAX_GPUS) {
        memcpy(s->gpus[a].remapped, g.remapped, sizeof g.remapped);
    } else if (sscanf(line, "nolink %u %u", &a, &b) == 2 && a < MAX_GPUS && b < MAX_GPUS) {
        s->gpus[a].unlinked |= 1u << b;
        s->gpus[b].unlinked |= 1u << a;
    } else {
        return 0;
    }
    return 1;
}

// Every call reads the file again, so that a test changes the GPUs while the reader runs.
static int load(struct state *s)
{
    const char *path = getenv("FAKENVML_STATE");
    char line[512];
    int rc = OK;
    path = path && *path ? path : "/etc/fakenvml.state";
    defaults(s);
    FILE *f = fopen(path, "re");
    if (!f && errno != ENOENT) {
        fprintf(stderr, "fakenvml: cannot read %s: %s\n", path, strerror(errno));
        return UNKNOWN;
    }
    if (!f)
        s->auto_mib = AUTO_RSS;
    for (unsigned number = 1; f && fgets(line, sizeof line, f); number++)
        if (!read_line(s, line)) {
            fprintf(stderr, "fakenvml: %s line %u is not understood: %s", path, number, line);
            rc = UNKNOWN;
        }
    if (f)
        fclose(f);
    return rc;
}

// How every call begins: SYSTEM() gives it the state s, GPU(device) also its GPU g; an error ends the call.
#define SYSTEM()                                                                                                       \
    struct state s;                                                                                                    \
    int rc = initialized ? load(&s) : UNINITIALIZED;                                                                   \
    if (rc != OK)                                                                                                      \
        return rc
#define GPU(device)                                                                                                    \
    SYSTEM();                                                                                                          \
    if (device == 0 || device > s.count)                                                                               \
        return INVALID_ARGUMENT;                                                                                       \
    const struct gpu *g = &s.gpus[device - 1];                                                                         \
    if (g->rc != OK)                                                                                                   \
        return g->rc

static int put(char *buffer, unsigned length, const char *text)
{
    if (strlen(text) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return OK;
}

static int on_off(int state, unsigned *now, unsigned *next)
{
    if (state < 0)
        return NOT_SUPPORTED;
    *now = *next = (unsigned)state;
    return OK;
}

EXPORT int nvmlInitWithFlags(unsigned flags)
{
    struct state s;
    int rc = load(&s);
    (void)flags;
    sleep(rc == OK ? s.hang : 0);
    rc = rc == OK ? s.init_rc : rc;
    initialized += rc == OK;
    return rc;
}

EXPORT int nvmlShutdown(void) { return initialized ? initialized--, OK : UNINITIALIZED; }

// Answers without nvmlInit, as the real one: nvidia-smi prints it after a failed init.
EXPORT int nvmlSystemGetNVMLVersion(char *buffer, unsigned length)
{
    struct state s;
    int rc = load(&s);
    return rc == OK ? put(buffer, length, s.nvml) : rc;
}

EXPORT int nvmlSystemGetDriverVersion(char *buffer, unsigned length) { SYSTEM(); return put(buffer, length, s.driver); }
EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version) { SYSTEM(); *version = s.cuda; return OK; }
EXPORT int nvmlDeviceGetCount_v2(unsigned *count) { SYSTEM(); *count = s.count; return OK; }

// A lost GPU gives no handle: a reader that starts after the loss learns neither its UUID nor its address.
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *device)
{
    GPU((handle)index + 1);
    *device = (handle)(g - s.gpus) + 1;
    return OK;
}

EXPORT int nvmlDeviceGetName(handle device, char *text, unsigned size) { GPU(device); return put(text, size, g->name); }
EXPORT int nvmlDeviceGetUUID(handle device, char *text, unsigned size) { GPU(device); return put(text, size, g->uuid); }
EXPORT int nvmlDeviceGetComputeMode(handle device, unsigned *mode) { GPU(device); *mode = g->compute_mode; return OK; }

EXPORT int nvmlDeviceGetMigMode(handle device, unsigned *now, unsigned *next)
{
    GPU(device);
    return on_off(g->mig, now, next);
}

EXPORT int nvmlDeviceGetEccMode(handle device, unsigned *now, unsigned *next)
{
    GPU(device);
    return on_off(g->ecc, now, next);
}

EXPORT int nvmlDeviceGetPciInfo_v3(handle device, struct pci_info *info)
{
    GPU(device);
    memset(info, 0, sizeof *info);
    if (sscanf(g->bus, "%x:%x:%x", &info->domain, &info->bus, &info->device) != 3)
        return UNKNOWN;
    return put(info->bus_id, sizeof info->bus_id, g->bus);
}

// v2 keeps what the driver holds for itself out of "used": total = reserved + used + free.
EXPORT int nvmlDeviceGetMemoryInfo_v2(handle device, struct memory_v2 *memory)
{
    GPU(device);
    if (memory->version != MEMORY_V2)
        return VERSION_MISMATCH;
    find_servers(&s);
    memory->total = g->total * MIB;
    memory->reserved = g->reserved * MIB;
    memory->used = g->used * MIB;
    memory->free = g->total > g->reserved + g->used ? (g->total - g->reserved - g->used) * MIB : 0;
    return OK;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(handle device, unsigned *count, struct process_info *infos)
{
    GPU(device);
    unsigned found = 0, room = infos ? *count : 0;
    find_servers(&s);
    for (unsigned i = 0; i < s.process_count; i++) {
        const struct process *p = &s.processes[i];
        if (&s.gpus[p->gpu] != g)
            continue;
        if (found < room)
            infos[found] = (struct process_info){p->pid, p->mib * MIB, NO_MIG_ID, NO_MIG_ID};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}

EXPORT int nvmlDeviceGetUtilizationRates(handle device, struct utilization *rates)
{
    GPU(device);
    *rates = (struct utilization){g->util, 0};
    return OK;
}

EXPORT int nvmlDeviceGetTotalEccErrors(handle device, unsigned type, unsigned counter, unsigned long long *errors)
{
    GPU(device);
    if (g->ecc != 1)
        return NOT_SUPPORTED;
    *errors = type ? g->uncorrected : g->corrected;
    return type > 1 || counter > 1 ? INVALID_ARGUMENT : OK;
}

EXPORT int nvmlDeviceGetRemappedRows(handle device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                                     unsigned *failed)
{
    GPU(device);
    if (g->ecc < 0)
        return NOT_SUPPORTED;
    *corrected = g->remapped[0];
    *uncorrected = g->remapped[1];
    *pending = g->remapped[2];
    *failed = g->remapped[3];
    return OK;
}

// Only the field that says what the driver wants done after an Xid error.
EXPORT int nvmlDeviceGetFieldValues(handle device, int count, struct field_value *values)
{
    GPU(device);
    for (int i = 0; i < count; i++) {
        values[i].rc = values[i].id == FIELD_RECOVERY_ACTION ? OK : NOT_SUPPORTED;
        values[i].type = 1; // unsigned int
        values[i].value = g->recovery;
    }
    return OK;
}

EXPORT int nvmlDeviceGetNvLinkState(handle device, unsigned link, unsigned *active)
{
    unsigned peers = 0;
    GPU(device);
    for (unsigned i = 0; i < s.count; i++)
        peers += &s.gpus[i] != g && !(g->unlinked & (1u << i));
    *active = link < LINKS_TO_EACH_PEER * peers;
    return link < LINKS_PER_GPU ? OK : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceGetP2PStatus(handle device, handle other, unsigned capability, unsigned *status)
{
    GPU(device);
    if (other == 0 || other > s.count || other == device)
        return INVALID_ARGUMENT;
    // 2 is NVLink; without it the GPUs still reach each other over PCIe. 5 is "not supported".
    *status = capability == 2 && g->unlinked & (1u << (other - 1)) ? 5 : 0;
    return s.gpus[other - 1].rc;
}

// Two sockets with two GPUs each: 40 is the same NUMA node, 50 the whole system.
EXPORT int nvmlDeviceGetTopologyCommonAncestor(handle device, handle other, unsigned *level)
{
    GPU(device);
    *level = (g - s.gpus) / 2 == (long)(other - 1) / 2 ? 40 : 50;
    return OK;
}
