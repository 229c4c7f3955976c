package fileaudit

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/event"
)

// methods are the ways in which files are copied, and what is told of them. Each
// script runs in a folder of its own, $W, on a local disk, with $S a protected
// share that holds the files of share below and $U a folder on a stick.
//
// want is a line per event: action, file name, evidence, confidence, name of the
// source, number of files. Source "-" is none, "*" one of several.
var methods = []struct {
	name, needs, script string
	want                []string
}{
	{"cp", "cp", `cp "$S/plan.doc" "$U/"`, []string{"file-copied plan.doc same-process high plan.doc 1"}},
	{"cp under another name", "cp", `cp "$S/plan.doc" "$U/holiday.jpg"`, []string{"file-copied holiday.jpg same-process high plan.doc 1"}},
	{"mv across file systems", "mv", `cp "$S/plan.doc" "$W/p"; sleep 0.6; mv "$W/p" "$U/q"`, []string{"file-copied p same-process high plan.doc 1", "file-copied q same-process high p 1"}},
	{"rsync", "rsync", `rsync -a "$S/dir" "$U/"`, []string{"file-copied a.txt content high a.txt 1", "file-copied b.txt content high b.txt 1", "file-copied c.txt content high c.txt 1"}},
	{"cat", "cat", `cat "$S/plan.doc" > "$U/x"`, []string{"file-copied x same-process medium plan.doc 1"}},
	{"cat of several", "cat", `cat "$S/dir/a.txt" "$S/dir/b.txt" > "$U/x"`, []string{"file-copied x same-process medium * 2"}},
	{"gzip in a loop", "gzip", `for f in a b c; do gzip -c "$S/dir/$f.txt" > "$U/$f.gz"; sleep 1.2; done`, []string{"archive-created a.gz archive medium a.txt 1 clear", "archive-created b.gz archive medium b.txt 1 clear", "archive-created c.gz archive medium c.txt 1 clear"}},
	{"cat and tee", "tee", `cat "$S/plan.doc" | tee "$U/x" >/dev/null`, []string{"file-copied x content medium plan.doc 1"}},
	{"dd", "dd", `dd if="$S/plan.doc" of="$U/x" bs=1k status=none`, []string{"file-copied x same-process high plan.doc 1"}},
	{"dd, a part", "dd", `dd if="$S/plan.doc" of="$U/x" bs=1k count=5 status=none`, []string{"file-copied x same-process medium plan.doc 1"}},
	{"tar in a pipe", "tar", `tar c -C "$S" dir | tar x -C "$U"`, []string{"file-copied a.txt content high a.txt 1", "file-copied b.txt content high b.txt 1", "file-copied c.txt content high c.txt 1"}},
	{"python shutil", "python3", `python3 -c 'import shutil,sys; shutil.copy(sys.argv[1], sys.argv[2])' "$S/plan.doc" "$U/x.doc"`, []string{"file-copied x.doc same-process high plan.doc 1"}},
	{"gio copy", "gio", `gio copy "$S/plan.doc" "$U/x.doc"`, []string{"file-copied x.doc same-process high plan.doc 1"}},
	{"memory map", "python3", `python3 -c 'import mmap,sys
a=open(sys.argv[1],"rb"); m=mmap.mmap(a.fileno(),0,prot=mmap.PROT_READ)
b=open(sys.argv[2],"w+b"); b.truncate(len(m)); n=mmap.mmap(b.fileno(),0); n[:]=m[:]' "$S/plan.doc" "$U/x"`, []string{"file-copied x same-process high plan.doc 1"}},
	{"copy_file_range", "python3", `python3 -c 'import os,sys
a=os.open(sys.argv[1],os.O_RDONLY); b=os.open(sys.argv[2],os.O_WRONLY|os.O_CREAT); n=os.fstat(a).st_size
try:
    os.copy_file_range(a,b,n)
except OSError:
    os.sendfile(b,a,0,n)' "$S/plan.doc" "$U/x"`, []string{"file-copied x same-process high plan.doc 1"}},
	{"sendfile", "python3", `python3 -c 'import os,sys
a=os.open(sys.argv[1],os.O_RDONLY); b=os.open(sys.argv[2],os.O_WRONLY|os.O_CREAT); os.sendfile(b,a,0,os.fstat(a).st_size)' "$S/plan.doc" "$U/x"`, []string{"file-copied x same-process high plan.doc 1"}},
	{"hard link, then cp", "ln", `cp "$S/plan.doc" "$W/p"; sleep 0.6; ln "$W/p" "$W/l"; cp "$W/l" "$U/q"`, []string{"file-copied p same-process high plan.doc 1", "file-copied q same-process high l 1"}},
	{"renamed, then cp", "cp", `cp "$S/plan.doc" "$W/p"; sleep 0.6; mv "$W/p" "$W/holiday.jpg"; cp "$W/holiday.jpg" "$U/"`, []string{"file-copied holiday.jpg same-process high holiday.jpg 1", "file-copied p same-process high plan.doc 1"}},
	{"copied twice, then cp", "cp", `cp "$S/plan.doc" "$W/p"; sleep 0.6; cp "$W/p" "$W/q"; sleep 0.6; cp "$W/q" "$U/r"`,
		[]string{"file-copied p same-process high plan.doc 1", "file-copied q same-process high p 1", "file-copied r same-process high q 1"}},
	{"by another program", "python3", `mkfifo "$W/f"; python3 -c 'import sys; b=open(sys.argv[1],"rb").read(); open(sys.argv[2],"wb").write(b)' "$S/plan.doc" "$W/f" & sleep 0.5; python3 -c 'import sys; open(sys.argv[2],"wb").write(open(sys.argv[1],"rb").read())' "$W/f" "$U/x"; wait`,
		[]string{"file-copied x content medium plan.doc 1"}},
	{"at once", "cp", `cp "$S/plan.doc" "$W/p"; cp "$W/p" "$U/q"; rm "$W/p"`, []string{"file-copied q content medium plan.doc 1"}},
	{"split", "split", `split -b 5k "$S/plan.doc" "$U/part."`, []string{"file-copied part.aa same-process medium plan.doc 1", "file-copied part.ab same-process medium plan.doc 1", "file-copied part.ac same-process medium plan.doc 1"}},
	{"split, then cp", "split", `split -b 10k "$S/plan.doc" "$W/part."; sleep 0.6; cp "$W/part.aa" "$W/part.ab" "$U/"`,
		[]string{"file-copied part.aa same-process medium part.aa 1", "file-copied part.aa same-process medium plan.doc 1", "file-copied part.ab same-process medium part.ab 1", "file-copied part.ab same-process medium plan.doc 1"}},
	{"gzip", "gzip", `gzip -c "$S/plan.doc" > "$U/x.gz"`, []string{"archive-created x.gz archive medium plan.doc 1 clear"}},
	{"zip, then cp", "zip", `cd "$S"; zip -q -r "$W/z.zip" dir; sleep 0.6; cp "$W/z.zip" "$U/"`, []string{"archive-created z.zip archive medium * 3 clear", "file-copied z.zip archive medium z.zip 3 clear"}},
	{"zip with a password, then cp at once", "zip", `cd "$S"; zip -q -r -P secret "$W/z.zip" dir; cp "$W/z.zip" "$U/y.zip"`, []string{"archive-created z.zip archive medium * 3 encrypted", "file-copied y.zip archive medium z.zip 3 encrypted"}},
	{"zip, then mv", "zip", `cd "$S"; zip -q -r "$W/z.zip" dir; sleep 0.6; mv "$W/z.zip" "$U/"`, []string{"archive-created z.zip archive medium * 3 clear", "file-copied z.zip archive medium z.zip 3 clear"}},
	{"zip on the stick", "zip", `cd "$S"; zip -q -r "$U/z.zip" dir`, []string{"archive-created z.zip archive medium * 3 clear"}},
	{"zip of copies, then cp", "zip", `cp -r "$S/dir" "$W/"; sleep 0.6; cd "$W"; zip -q -r z.zip dir; sleep 0.6; cp z.zip "$U/"`,
		[]string{"archive-created z.zip archive medium * 3 clear", "file-copied a.txt same-process high a.txt 1", "file-copied b.txt same-process high b.txt 1", "file-copied c.txt same-process high c.txt 1", "file-copied z.zip archive medium z.zip 3 clear"}},
	{"zip in a zip", "zip", `cd "$S"; zip -q -r "$W/z.zip" dir; sleep 0.6; cd "$W"; zip -q y.zip z.zip; sleep 0.6; cp y.zip "$U/"`,
		[]string{"archive-created y.zip archive medium * 3 clear", "archive-created z.zip archive medium * 3 clear", "file-copied y.zip archive medium y.zip 3 clear"}},
	{"zip, then unzip on the stick", "unzip", `cd "$S"; zip -q -r "$W/z.zip" dir; sleep 0.6; cd "$U"; unzip -q "$W/z.zip"`,
		[]string{"archive-created z.zip archive medium * 3 clear", "file-copied a.txt archive medium z.zip 1", "file-copied b.txt archive medium z.zip 1", "file-copied c.txt archive medium z.zip 1"}},
	{"7z with a password, then cp", "7z", `cd "$S"; 7z a -psecret -bd "$W/z.7z" dir >/dev/null; sleep 0.6; cp "$W/z.7z" "$U/"`, []string{"archive-created z.7z archive medium * 3 encrypted", "file-copied z.7z archive medium z.7z 3 encrypted"}},
	{"7z with hidden names on the stick", "7z", `cd "$S"; 7z a -psecret -mhe=on -bd "$U/z.7z" dir >/dev/null`, []string{"archive-created z.7z archive medium * 3 encrypted"}},
	{"tar with gzip, then cp", "tar", `tar czf "$W/t.tgz" -C "$S" dir; sleep 0.6; cp "$W/t.tgz" "$U/"`, []string{"archive-created t.tgz archive medium * 3 clear", "file-copied t.tgz archive medium t.tgz 3 clear"}},
	{"tar and gzip in a pipe", "tar", `tar c -C "$S" dir | gzip > "$U/t.tgz"`, []string{"archive-created t.tgz archive medium * 3 clear"}},
	{"tar and openssl in a pipe", "openssl", `tar c -C "$S" dir | openssl enc -aes-256-cbc -pbkdf2 -k x -out "$U/t.enc"`, []string{"archive-created t.enc archive medium * 3 encrypted"}},
	{"python zipfile", "python3", `cd "$S"; python3 -m zipfile -c "$U/z.zip" dir`, []string{"archive-created z.zip archive low * 3 clear"}},
	{"a zip of the share is a file", "cp", `cp "$S/old.zip" "$U/"`, []string{"file-copied old.zip same-process high old.zip 1 clear"}},
	{"from elsewhere", "cp", `head -c 5000 /dev/urandom > "$W/mine"; cp "$W/mine" "$U/mine"`, []string{"file-copied mine same-process high mine 1"}},
	{"overwritten with something else", "cp", `cp "$S/plan.doc" "$W/p"; sleep 0.6; head -c 5000 /dev/urandom > "$W/p"; sleep 0.6; cat "$W/p" > "$U/q"`,
		[]string{"file-copied p same-process high plan.doc 1", "file-copied q   - 1"}},
	{"scp", "scp", `printf '#!/bin/sh\nfor a; do c=$a; done\nexec sh -c "$c"\n' > "$W/ssh"; chmod +x "$W/ssh"; scp -q -O -S "$W/ssh" "$S/plan.doc" far.example.jp:"$W/arrived"`,
		[]string{"file-copied arrived content medium plan.doc 1", "file-uploaded plan.doc same-process medium plan.doc 1 > far.example.jp"}},
	{"zip, then scp", "scp", `printf '#!/bin/sh\nfor a; do c=$a; done\nexec sh -c "$c"\n' > "$W/ssh"; chmod +x "$W/ssh"; cd "$S"; zip -q -r "$W/z.zip" dir; sleep 0.6; scp -q -O -S "$W/ssh" "$W/z.zip" far.example.jp:"$W/arrived"`,
		[]string{"archive-created z.zip archive medium * 3 clear", "file-copied arrived archive medium z.zip 3 clear", "file-uploaded z.zip archive medium z.zip 3 clear > far.example.jp"}},
	{"smbclient", "smbd", `mkdir "$W/far"; printf '[global]\nmap to guest = Bad User\nload printers = no\nserver min protocol = SMB2\nlog level = 0\nlog file = %s/log\nlock directory = %s\nstate directory = %s\ncache directory = %s\nprivate dir = %s\npid directory = %s\nncalrpc dir = %s/rpc\nsmb ports = 44551\ninterfaces = lo\nbind interfaces only = yes\n[x]\npath = %s/far\nguest ok = yes\nforce user = root\nread only = no\n' "$W" "$W" "$W" "$W" "$W" "$W" "$W" "$W" > "$W/smb.conf"
smbd -i -s "$W/smb.conf" </dev/null >"$W/said" 2>&1 & p=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do smbclient -N -p 44551 //127.0.0.1/x -c "put \"$S/plan.doc\" got" >>"$W/said" 2>&1 && break; sleep 0.3; done
sleep 0.6; kill $p 2>/dev/null || true`, []string{"file-copied got content medium plan.doc 1", "file-uploaded plan.doc same-process medium plan.doc 1 > 127.0.0.1"}},
	{"nothing leaves", "cp", `cp "$S/plan.doc" "$S/copy of plan.doc"`, []string{"file-written copy of plan.doc"}},
}

func TestCopyMethods(t *testing.T) {
	needFanotify(t)
	share, stick, work := mountTmpfs(t), mountExt4(t, "64M"), t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	put := func(name string, size int) {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if err := os.WriteFile(filepath.Join(share, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	prepare := func(dir string, i int) {
		for _, d := range []string{filepath.Join(share, dir, "dir"), filepath.Join(stick, dir), filepath.Join(work, dir)} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		put(dir+"/plan.doc", 14_000)
		put(dir+"/dir/a.txt", 1000)
		put(dir+"/dir/b.txt", 2000)
		put(dir+"/dir/c.txt", 3000)
		zip := make([]byte, 300) // one entry of one letter
		copy(zip, "PK\x03\x04\x14")
		zip[26], zip[30], zip[31] = 1, 'x', byte(i)
		if err := os.WriteFile(filepath.Join(share, dir, "old.zip"), zip, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, out := watch(t, Options{Protected: []Place{{Label: "人事", Shares: []string{`\\fs01\hr`}}}}, map[string]string{share: `\\fs01\hr`}, stick)

	// Four at a time; what does not come right is tried again alone: on a busy
	// machine a program may end before its name and its arguments are known.
	todo := []int{}
	for i, m := range methods {
		if _, err := exec.LookPath(m.needs); err == nil {
			todo = append(todo, i)
		}
	}
	there := slices.Clone(todo)
	got := make([][]string, len(methods))
	for round, at := range []int{4, 1, 1} {
		var all []*event.Event
		sem, finished := make(chan struct{}, at), make(chan error, len(todo))
		for _, i := range todo {
			dir := fmt.Sprint(round, "-", i)
			prepare(dir, 50*round+i)
			go func() {
				sem <- struct{}{}
				defer func() { <-sem }()
				script := methods[i].script
				if round > 0 { // what comes before a pause is to be known after it
					script = strings.ReplaceAll(script, "sleep 0.6", "sleep 3")
				}
				cmd := exec.Command("/bin/sh", "-ec", script)
				cmd.Env = append(os.Environ(), "S="+filepath.Join(share, dir), "U="+filepath.Join(stick, dir), "W="+filepath.Join(work, dir))
				if o, err := cmd.CombinedOutput(); err != nil {
					finished <- fmt.Errorf("%s: %v: %s", methods[i].name, err, o)
					return
				}
				finished <- nil
			}()
		}
		for range todo {
			for wait := true; wait; {
				select {
				case err := <-finished:
					if wait = false; err != nil {
						t.Error(err)
					}
				case e := <-out:
					all = append(all, e)
				}
			}
		}
		all = append(all, collect(out, 0, 1500*time.Millisecond)...)
		todo = slices.DeleteFunc(todo, func(i int) bool {
			got[i] = methodLines(all, fmt.Sprint(round, "-", i))
			want := slices.Clone(methods[i].want)
			slices.Sort(want)
			return slices.Equal(got[i], want)
		})
		if round == 0 && len(todo) > 0 {
			t.Logf("%d of %d are tried again", len(todo), len(there))
		}
	}
	for i, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			if !slices.Contains(there, i) {
				t.Skipf("no %s here", m.needs)
			}
			if slices.Contains(todo, i) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got[i], "\n\t"), strings.Join(m.want, "\n\t"))
			}
		})
	}
}

// methodLines is what was told of files below a folder, in the form of methods,
// sorted. A source that lacks its label, or a total that lacks its files, is told
// as such.
func methodLines(all []*event.Event, dir string) (got []string) {
	for _, e := range all {
		if e.File == nil || e.Action == event.FileDeleted || !slices.Contains(strings.Split(e.File.Path, "/"), dir) {
			continue
		}
		s := fmt.Sprintf("%s %s", e.Action, e.File.Name)
		if c := e.Copy; c != nil && e.Action != event.FileRenamed {
			name := "-"
			if c.SourcePath != "" {
				name = filepath.Base(c.SourcePath)
			}
			if strings.HasSuffix(name, ".txt") && c.Files.V > 1 {
				name = "*" // one of them
			}
			s += fmt.Sprintf(" %s %s %s %d", c.Evidence, c.Confidence, name, c.Files.V)
			if x := c.ArchiveEncrypted; x.OK {
				s += map[bool]string{true: " encrypted", false: " clear"}[x.V]
			}
			if e.Network != nil {
				s += " > " + e.Network.DestinationDomain
			}
			watched := name != "-" && name != "mine"
			if watched && (c.SourceProtected != "人事" || c.SourceShare != `\\fs01\hr` || c.SourceVolumeKind != event.VolumeNetwork) {
				s += fmt.Sprintf(" BUT label %q share %q kind %q", c.SourceProtected, c.SourceShare, c.SourceVolumeKind)
			}
			if watched && c.Files.V > 1 && (len(c.SourceIDs) != int(c.Files.V) || len(c.Paths) != int(c.Files.V) || c.Bytes.V < 3000) {
				s += fmt.Sprintf(" BUT ids %q paths %q bytes %d", c.SourceIDs, c.Paths, c.Bytes.V)
			}
		}
		got = append(got, s)
	}
	slices.Sort(got)
	return got
}

// A clone shares the blocks of its source: nothing is read or written.
func TestReflinks(t *testing.T) {
	needFanotify(t)
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		t.Skip("no mkfs.xfs (apt-get install xfsprogs)")
	}
	base := t.TempDir()
	img, at := filepath.Join(base, "img"), filepath.Join(base, "disk")
	run(t, `truncate -s 400M "$1"; mkdir "$2"; mkfs.xfs -q -m reflink=1 "$1"`, img, at)
	if o, err := exec.Command("mount", "-o", "loop", img, at).CombinedOutput(); err != nil {
		t.Skipf("mount xfs: %v: %s", err, o)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	run(t, `mkdir "$1/hr" "$1/out"; head -c 50000 /dev/urandom > "$1/hr/plan.doc"`, at)
	_, out := watch(t, Options{Protected: []Place{{Label: "hr", Globs: []string{at + "/hr"}}}}, nil, at)
	run(t, `cp --reflink=always "$1/hr/plan.doc" "$1/out/x"`, at)
	e := collect(out, 1, time.Second)
	if len(e) != 1 || e[0].Action != event.FileCopied || e[0].Copy.Evidence != evidenceProcess || e[0].Copy.SourceProtected != "hr" || e[0].Copy.Bytes.V != 50000 {
		t.Errorf("got %q", lines(e, at))
	}
}

// spent is the CPU that this program has used.
func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Many small files copied out of a protected share, then packed: every one is
// told with its source, and the archive holds them all.
func TestAFloodOfFilesFromAShare(t *testing.T) {
	needFanotify(t)
	n := 2000
	if os.Getenv("SEKISHO_FLOOD") != "" { // what the documents quote
		n = 50_000
	}
	share, stick, local := mountTmpfs(t), mountExt4(t, "400M"), t.TempDir()
	run(t, fmt.Sprintf(`cd "$1"; mkdir d; head -c %d /dev/urandom | split -b 100 -a 4 - d/f`, 100*n), share)
	w, out := watch(t, Options{Protected: []Place{{Label: "人事", Shares: []string{`\\fs01\hr`}}}, Process: func(pid int) (*event.Process, *event.User) {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return &event.Process{PID: event.Some(int64(pid)), EntityID: fmt.Sprint(pid), Name: strings.TrimSpace(string(args))}, nil
	}}, map[string]string{share: `\\fs01\hr`}, stick)

	tell := func(what string, before time.Duration, n int) {
		d := spent() - before
		t.Logf("%s: our CPU %v, %v a file", what, d.Round(time.Millisecond), d/time.Duration(n))
	}
	collect(out, 0, time.Second) // the sensors have come up
	before := spent()
	run(t, fmt.Sprintf(`mkdir "$1/x"; cd "$1/x"; head -c %d /dev/zero | split -b 100 -a 4 - f`, 100*n), local)
	if e := collect(out, 0, time.Second); len(e) != 0 {
		t.Errorf("local files are told: %q", lines(e, local)[:1])
	}
	tell(fmt.Sprintf("%d local files while nothing is read", n), before, n)

	before = spent()
	began := time.Now()
	run(t, `cp -r "$1/d" "$2/"`, share, stick)
	took := time.Since(began)
	var files, bytes, sourced int64
	ids := map[string]bool{}
	events := collect(out, 1, 8*time.Second)
	for _, e := range events {
		if e.Lost != nil {
			t.Errorf("lost %d", e.Lost.Count.V)
			continue
		}
		files += e.Copy.Files.V
		bytes += e.Copy.Bytes.V
		if e.Copy.SourceProtected == "人事" && e.Copy.SourceShare == `\\fs01\hr` {
			sourced += e.Copy.Files.V
		}
		for _, id := range e.Copy.SourceIDs {
			ids[id] = true
		}
	}
	tell(fmt.Sprintf("%d files from a share to a stick in %v, told by %d events", n, took.Round(time.Millisecond), len(events)), before, n)
	if int(files) != n || int(sourced) != n || int(bytes) != 100*n || len(ids) != n {
		t.Errorf("%d files, %d with source, %d bytes, %d sources, want %d; status %+v", files, sourced, bytes, len(ids), n, w.Status())
	}

	if _, err := exec.LookPath("zip"); err != nil {
		t.Skip("no zip here")
	}
	before = spent()
	run(t, `cd "$1"; zip -q -r "$2/all.zip" d`, share, local)
	e := collect(out, 1, 8*time.Second)
	tell(fmt.Sprintf("%d files packed", n), before, n)
	if len(e) != 1 || e[0].Action != event.ArchiveCreated || int(e[0].Copy.Files.V) != n || int(e[0].Copy.Bytes.V) != 100*n || len(e[0].Copy.SourceIDs) != min(n, maxOrigins) {
		t.Errorf("got %q", lines(e, local))
	}
}
