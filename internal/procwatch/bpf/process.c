//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What the kernel tells of processes: three raw tracepoints write records to one
// ring buffer. A raw tracepoint needs neither tracefs nor kprobes, and its
// arguments are the kernel's own structures, whose layout is looked up when the
// object is loaded (CO-RE), so that one object serves every kernel since 5.8.
//
// Everything here runs in the process that forks, executes or ends, which waits
// for it. The layout of the records is that of records.go; both change together.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// From the kernel's include/uapi/linux/bpf.h.
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_RINGBUF 27
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static u64 (*const ktime_ns)(void) = (void *)5;
static u64 (*const cgroup_id)(void) = (void *)80;
static long (*const read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*const read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*const read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static long (*const ring_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;

#define SEC(name) __attribute__((section(name), used))
#define UINT(name, value) int (*name)[value]
#define TYPE(name, type) typeof(type) *name
// READ copies a field; one that cannot be read is zero.
#define READ(to, field) read_kernel(&(to), sizeof(to), &(field))
#define HAS(field) __builtin_preserve_field_info(field, 2 /* BPF_FIELD_EXISTS */)
#define OFFSET(field) __builtin_preserve_field_info(field, 0 /* BPF_FIELD_BYTE_OFFSET */)

// The kernel's types, as far as they are used.
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
typedef struct { u32 val; } kuid_t;
struct qstr { const u8 *name; };
struct hlist_bl_node { struct hlist_bl_node **pprev; };
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
};
struct vfsmount { struct dentry *mnt_root; };
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file { struct path f_path; };
struct fs_struct { struct path pwd; };
struct mm_struct {
	struct file *exe_file;
	unsigned long arg_start, arg_end;
};
struct cred { kuid_t uid, euid; };
typedef struct { int counter; } atomic_t;
struct signal_struct {
	atomic_t live;
	int group_exit_code;
	u32 flags;
};
struct kernfs_node { const char *name; };
struct cgroup { struct kernfs_node *kn; };
struct css_set { struct cgroup *dfl_cgrp; };
struct task_struct {
	u32 flags;
	int pid, tgid, exit_code;
	u64 start_boottime;
	struct task_struct *real_parent, *group_leader;
	struct mm_struct *mm;
	struct fs_struct *fs;
	const struct cred *cred;
	struct signal_struct *signal;
	struct css_set *cgroups;
	kuid_t loginuid;
	u32 sessionid;
	char comm[16];
};
#pragma clang attribute pop

struct bpf_raw_tracepoint_args { u64 args[0]; };

#define PF_KTHREAD 0x00200000   // include/linux/sched.h
#define SIGNAL_GROUP_EXIT 0x4   // include/linux/sched/signal.h
#define NO_ID 0xffffffff        // loginuid and session of what no login began

enum { FORK = 1, EXEC = 2, EXIT = 3 };

// Flags of an EXEC.
enum {
	EXE_CUT = 1,      // more names than are read: what is told is the path's end
	EXE_DELETED = 2,
	CWD_CUT = 4,
	CWD_DELETED = 8,
	ARGS_CUT = 16,
	ARGS_FAILED = 32, // could not be read
};

// The bounds. Names are at most 255 bytes and their end; a path has at most 4,096
// in all. 64 names and mounts deep is a judgement: the verifier walks every one.
#define NAME 256
#define DEPTH 64
#define PATH_ROOM 4096
#define ARGS_ROOM 4096
#define CGROUP_ROOM 128

struct record { // FORK and EXIT are this
	u8 kind;
	u8 flags;
	u16 exe, cwd, args; // lengths in what follows an EXEC
	u32 pid, ppid;
	u64 at;    // CLOCK_MONOTONIC, ns
	u64 start; // of the process, CLOCK_BOOTTIME, ns
	u32 status; // of an EXIT, as of wait(2)
	u32 uid; // real user
};

struct exec {
	struct record r;
	u64 parent_start;
	u64 cgroup;
	u32 loginuid, session;
	u32 args_total; // what there is of arguments
	u32 end;        // of what is in data
	u16 cgroup_name; // length
	u16 unused;
	u32 euid; // effective user
	char comm[16];
	u8 data[2 * PATH_ROOM + ARGS_ROOM + CGROUP_ROOM]; // exe, cwd: names from the leaf up, NUL after each; args; cgroup
};

struct {
	UINT(type, BPF_MAP_TYPE_RINGBUF);
	UINT(max_entries, 2 << 20); // the agent says how much
} records SEC(".maps");

struct {
	UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, u64);
} dropped SEC(".maps");

// An EXEC is put together here: the stack has 512 bytes.
struct {
	UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct exec);
} scratch SEC(".maps");

static __attribute__((always_inline)) void lose(void)
{
	u32 zero = 0;
	u64 *n;

	n = map_lookup(&dropped, &zero);
	if (n)
		(*n)++;
}

static __attribute__((always_inline)) void tell(void *what, u64 size)
{
	if (ring_output(&records, what, size, 0))
		lose();
}

// names writes the names of a path from the leaf up to data[end], at most up to
// data[limit], and moves end. It is d_path of the kernel, which tracepoints may
// not call, but for the reader's root: the path is that of the mount namespace.
// end is in memory: the verifier forgets its value there and needs to walk each
// turn of the loop once only.
static __attribute__((always_inline)) void names(struct exec *e, u32 limit, const struct path *path, u8 cut, u8 deleted)
{
	struct dentry *dentry = 0, *parent, *root, **pprev;
	struct mount *mnt = 0, *up;
	struct vfsmount *vfs = 0;
	const u8 *name;
	u32 off;
	long n;
	int i;

	READ(dentry, path->dentry);
	READ(vfs, path->mnt);
	if (!dentry || !vfs)
		return;
	READ(parent, dentry->d_parent);
	READ(pprev, dentry->d_hash.pprev);
	READ(root, vfs->mnt_root);
	if (dentry != root && (dentry == parent || !pprev))
		e->r.flags |= deleted; // in memory only, or unlinked
	mnt = (void *)vfs - OFFSET(mnt->mnt);
	for (i = 0; i < DEPTH; i++) {
		if (dentry == root) {
			READ(up, mnt->mnt_parent);
			if (up == mnt || !up)
				return;
			READ(dentry, mnt->mnt_mountpoint);
			mnt = up;
			READ(root, mnt->mnt.mnt_root);
			continue;
		}
		READ(parent, dentry->d_parent);
		if (dentry == parent && i)
			return;
		READ(name, dentry->d_name.name);
		off = *(volatile u32 *)&e->end;
		if (off > limit - NAME)
			break;
		n = read_kernel_str(e->data + off, NAME, name);
		if (n <= 0)
			return;
		e->end = off + n;
		if (dentry == parent) // has no folder: memfd
			return;
		dentry = parent;
	}
	e->r.flags |= cut;
}

SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *child = (void *)ctx->args[1], *parent;
	struct record r = { .kind = FORK };
	const struct cred *cred;
	u32 flags, tid;

	READ(r.pid, child->tgid);
	READ(tid, child->pid);
	READ(flags, child->flags);
	if (tid != r.pid || flags & PF_KTHREAD)
		return 0;
	READ(parent, child->real_parent);
	READ(r.ppid, parent->tgid);
	READ(r.start, child->start_boottime);
	READ(cred, child->cred);
	READ(r.uid, cred->uid.val);
	r.at = ktime_ns();
	tell(&r, sizeof(r));
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0], *leader;
	struct record r = { .kind = EXIT };
	struct signal_struct *sig;
	int live;
	u32 flags;

	READ(flags, task->flags);
	READ(sig, task->signal);
	READ(live, sig->live.counter);
	if (live || flags & PF_KTHREAD) // not the last thread
		return 0;
	READ(r.pid, task->tgid);
	READ(leader, task->group_leader);
	READ(r.start, leader->start_boottime);
	READ(flags, sig->flags);
	if (flags & SIGNAL_GROUP_EXIT)
		READ(r.status, sig->group_exit_code);
	else
		READ(r.status, leader->exit_code);
	r.at = ktime_ns();
	tell(&r, sizeof(r));
	return 0;
}

SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0], *leader, *parent;
	unsigned long start = 0, end = 0;
	struct fs_struct *fs = 0;
	struct mm_struct *mm = 0;
	const struct cred *cred = 0;
	struct file *exe = 0;
	struct css_set *css = 0;
	struct cgroup *cg = 0;
	struct kernfs_node *kn = 0;
	const char *name = 0;
	u32 zero = 0, off, size;
	struct exec *e;
	long n;

	e = map_lookup(&scratch, &zero);
	if (!e)
		goto lost;
	e->r.kind = EXEC;
	e->r.flags = 0;
	e->r.status = 0;
	e->r.at = ktime_ns();
	READ(e->r.pid, task->tgid);
	READ(leader, task->group_leader);
	READ(e->r.start, leader->start_boottime);
	READ(parent, task->real_parent);
	READ(e->r.ppid, parent->tgid);
	READ(leader, parent->group_leader);
	READ(e->parent_start, leader->start_boottime);
	READ(cred, task->cred);
	READ(e->r.uid, cred->uid.val);
	READ(e->euid, cred->euid.val);
	e->loginuid = e->session = NO_ID;
	if (HAS(task->loginuid))
		READ(e->loginuid, task->loginuid.val);
	if (HAS(task->sessionid))
		READ(e->session, task->sessionid);
	READ(e->comm, task->comm);
	e->cgroup = cgroup_id();
	READ(mm, task->mm);
	READ(exe, mm->exe_file);
	READ(start, mm->arg_start);
	READ(end, mm->arg_end);

	e->end = 0;
	if (exe)
		names(e, PATH_ROOM, &exe->f_path, EXE_CUT, EXE_DELETED);
	e->r.exe = e->end;

	READ(fs, task->fs);
	if (fs)
		names(e, 2 * PATH_ROOM, &fs->pwd, CWD_CUT, CWD_DELETED);
	e->r.cwd = e->end - e->r.exe;

	size = 0;
	e->args_total = 0;
	if (end > start) {
		e->args_total = end - start;
		size = e->args_total;
		if (end - start > ARGS_ROOM) {
			e->r.flags |= ARGS_CUT;
			size = ARGS_ROOM;
		}
	}
	off = *(volatile u32 *)&e->end;
	if (off > 2 * PATH_ROOM)
		goto lost;
	asm volatile("" : "+r"(size)); // the verifier is to see the bound on what is used
	if (size > ARGS_ROOM)
		goto lost;
	if (size && read_user(e->data + off, size, (void *)start)) {
		e->r.flags |= ARGS_FAILED;
		size = 0;
	}
	e->r.args = size;
	off += size;

	READ(css, task->cgroups);
	READ(cg, css->dfl_cgrp);
	READ(kn, cg->kn);
	READ(name, kn->name);
	if (off > 2 * PATH_ROOM + ARGS_ROOM)
		goto lost;
	n = 0;
	if (name)
		n = read_kernel_str(e->data + off, CGROUP_ROOM, name);
	if (n < 0 || n > CGROUP_ROOM)
		n = 0;
	e->cgroup_name = n;
	off += n;
	e->end = off;
	if (off > sizeof(e->data))
		goto lost;
	tell(e, sizeof(*e) - sizeof(e->data) + off);
	return 0;
lost: // does not happen: the verifier asks for these bounds
	lose();
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL"; // the helpers that read memory are for GPL-compatible programs
