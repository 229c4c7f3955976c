package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process that is confined.
func TestMain(m *testing.M) {
	if keep, ok := os.LookupEnv("SEKISHO_TEST_KEEP"); ok {
		confined(strings.Split(keep, ","))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// confined gives up rights and says, line by line, what is possible then.
func confined(keep []string) {
	// Threads that are there before, each to be asked afterwards.
	var ready, asked sync.WaitGroup
	ask, counted := make(chan struct{}), make(chan struct{})
	errs := make(chan error, 8)
	for range 8 {
		ready.Add(1)
		asked.Go(func() {
			runtime.LockOSThread()
			ready.Done()
			<-ask
			errs <- unix.Unshare(unix.CLONE_NEWUTS)
			<-counted // a thread ends with the goroutine that is locked to it
		})
	}
	ready.Wait()
	if err := Drop(keep...); err != nil {
		fmt.Println("drop:", err)
		os.Exit(1)
	}
	close(ask)
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	for _, f := range threads {
		b, _ := os.ReadFile(f)
		s := parse(string(b))
		fmt.Printf("thread: %s; bounding %s; %v %v\n", strings.Join(s.Capabilities, " "), strings.Join(s.Bounding, " "), s.NoNewPrivileges, s.Filtered)
	}
	close(counted)
	asked.Wait()
	say := func(what string, err error) { fmt.Printf("%s: %v\n", what, err) }
	for range 8 {
		say("unshare", <-errs)
	}
	say("mount", unix.Mount("x", "/mnt", "tmpfs", 0, ""))
	say("setns", unix.Setns(0, 0))
	say("ptrace", unix.PtraceAttach(1))
	say("chroot", unix.Chroot("/"))
	say("hostname", unix.Sethostname([]byte("x")))
	say("module", unix.DeleteModule("none", 0))
	_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	say("packet socket", err)
	_, err = unix.Mmap(-1, 0, 4096, unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	say("writable code", err)
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, 0, 0)
	say("bpf program", errno)
	_, err = unix.OpenByHandleAt(0, unix.NewFileHandle(1, []byte("12345678")), 0)
	say("open by handle", err)

	// What has to work.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	say("listen", err)
	if err == nil {
		c, err := net.Dial("tcp", l.Addr().String())
		say("connect", err)
		if err == nil {
			c.Close()
		}
	}
	_, err = user.LookupId("65534")
	say("account", err)
	_, err = net.LookupHost("localhost")
	say("name", err)
	out, err := exec.Command("/bin/sh", "-c", "grep -E '^(CapPrm|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\n\\t ' ' '; unshare -m true").CombinedOutput()
	say("child", err)
	fmt.Printf("child says: %s\n", strings.ReplaceAll(string(out), "\n", " "))
	dir, err := os.MkdirTemp("", "confine")
	if err == nil {
		err = errors.Join(os.WriteFile(dir+"/a", nil, 0o600), os.Rename(dir+"/a", dir+"/b"), os.RemoveAll(dir))
	}
	say("files", err)
	var more sync.WaitGroup
	for range 32 {
		more.Go(func() {
			runtime.LockOSThread() // a new thread each
			runtime.Gosched()
		})
	}
	more.Wait()
	runtime.GC()
	say("threads", nil)
}

func TestWhatIsGivenUpIsGoneOnEveryThreadAndForChildren(t *testing.T) {
	for _, tt := range []struct {
		name, keep, left string
	}{
		{"some are kept", "dac_read_search,sys_ptrace", "dac_read_search sys_ptrace"},
		{"sys_admin is kept and filtered", "sys_admin", "sys_admin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), "SEKISHO_TEST_KEEP="+tt.keep)
			b, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, b)
			}
			out := string(b)
			left := tt.left
			if os.Geteuid() != 0 {
				left = ""
			}
			threads := 0
			for line := range strings.Lines(out) {
				rest, ok := strings.CutPrefix(line, "thread: ")
				if !ok {
					continue
				}
				threads++
				want := left + "; bounding " + left + "; true true\n"
				if os.Geteuid() != 0 {
					rest, want = rest[strings.LastIndex(rest, ";"):], "; true true\n"
				}
				if rest != want {
					t.Errorf("a thread has %q, want %q", rest, want)
				}
			}
			if threads < 9 {
				t.Errorf("%d threads", threads)
			}
			const no = "operation not permitted"
			for what, want := range map[string]string{
				"unshare": no, "mount": no, "setns": no, "ptrace": no, "chroot": no, "hostname": no, "module": no, "packet socket": no, "writable code": no, "bpf program": no,
				"listen": "<nil>", "connect": "<nil>", "account": "<nil>", "name": "<nil>", "files": "<nil>", "threads": "<nil>", "child": "exit status 1",
			} {
				n := 1
				if what == "unshare" {
					n = 8
				}
				for line := range strings.Lines(out) {
					if line == what+": "+want+"\n" {
						n--
					}
				}
				if n != 0 {
					t.Errorf("%s: %q is said %d times less than it should", what, want, n)
				}
			}
			if !strings.Contains(out, "NoNewPrivs: 1") || !strings.Contains(out, "Seccomp: 2") || !strings.Contains(out, "unshare failed") {
				t.Error("a child is not confined")
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}

func TestCapabilitiesHaveNames(t *testing.T) {
	if _, err := set([]string{"sys_admin", "sys_god"}); err == nil {
		t.Error("a capability that is none is taken")
	}
	bits, err := set([]string{"sys_admin", "chown", "checkpoint_restore"})
	if err != nil || bits != 1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_CHOWN|1<<unix.CAP_CHECKPOINT_RESTORE {
		t.Errorf("%#x, %v", bits, err)
	}
	if got := list(bits | 1<<50); !slices.Equal(got, []string{"chown", "sys_admin", "checkpoint_restore", "50"}) {
		t.Errorf("%q", got)
	}
	if s, err := Now(); err != nil || os.Geteuid() == 0 && len(s.Capabilities) == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
