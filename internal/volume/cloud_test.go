package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"sekisho/internal/event"
)

func TestFoldersOfSyncProgramsAreFound(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"home/taro/OneDrive - Example", "home/taro/Work", "home/hanako/Dropbox (Personal)", "home/hanako/Box", "home/jiro/cloud", "home/far/OneDrive", "root/Nextcloud", "home/taro/Documents", "home/mallory/mine"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		"home/taro/.config/onedrive/config":            "# mine\nsync_dir = \"~/Work\"\nskip_file = \"x\"\n",
		"home/jiro/.dropbox/info.json":                 `{"personal": {"path": "` + filepath.ToSlash(root) + `/home/jiro/cloud", "host": 1}}`,
		"home/mallory/.config/onedrive/config":         `sync_dir = "~/../taro/Documents"`,
		"home/mallory/.config/onedrive-two/config":     `sync_dir = "/"`,
		"home/mallory/.config/Nextcloud/nextcloud.cfg": "0\\Folders\\1\\localPath=" + filepath.ToSlash(root) + "/home/mallory\n",
	} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, c := range findClouds(root, func(home string) bool { return filepath.Base(home) == "far" }) {
		rel, _ := filepath.Rel(root, c.path)
		got = append(got, filepath.ToSlash(rel)+" "+c.provider)
	}
	want := []string{"home/hanako/Box Box", "home/hanako/Dropbox (Personal) Dropbox", "home/jiro/cloud Dropbox", "home/taro/OneDrive - Example OneDrive", "home/taro/Work OneDrive", "root/Nextcloud Nextcloud"}
	if !slices.Equal(got, want) && filepath.Separator == '/' {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestFoldersOfSyncProgramsAreVolumes(t *testing.T) {
	w := newBench(t)
	w.clouds = []cloud{{"/home/taro/OneDrive", "OneDrive"}}
	_, come := w.feed(rootLine)
	if len(come) != 1 || come[0].Kind != event.VolumeCloudSync || come[0].Share != "OneDrive" || come[0].Dev != (Dev{8, 1}) || come[0].message == "" {
		t.Errorf("came: %+v", come)
	}
	if v, ok := w.Table().Lookup("/home/taro/OneDrive/a/b.txt"); !ok || !v.Folder || v.Kind != event.VolumeCloudSync {
		t.Errorf("found %+v", v)
	}
	if v, _ := w.Table().Lookup("/home/taro/OneDriver"); v.Folder {
		t.Errorf("found %+v", v)
	}
	if gone, come := w.feed(rootLine); len(gone)+len(come) != 0 {
		t.Errorf("told again: %+v %+v", gone, come)
	}
	w.clouds = nil
	if gone, come := w.feed(rootLine); len(gone) != 1 || len(come) != 0 {
		t.Errorf("gone %+v, came %+v", gone, come)
	}
}

func FuzzCloudSettings(f *testing.F) {
	f.Add([]byte("sync_dir = \"~/OneDrive\"\n"))
	f.Add([]byte(`{"personal": {"path": "/home/x/Dropbox"}}`))
	f.Add([]byte("0\\Folders\\1\\localPath=/home/taro/Nextcloud/\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) []string{parseOneDrive, parseNextcloud, parseDropbox} {
			if slices.Contains(parse(b), "") {
				t.Error("an empty folder")
			}
		}
	})
}

func TestWhoKeepsAFolderInStep(t *testing.T) {
	for key, want := range map[string]string{"OneDrive!S-1-5-21-1!Business1|abc": "OneDrive", "dropbox!S-1-5-21-1!Personal": "Dropbox", "iCloudDrive!S-1": "iCloud", "Example.Sync!S-1!x": "Example.Sync", "": ""} {
		if got := syncProvider(key); got != want {
			t.Errorf("syncProvider(%q) = %q, want %q", key, got, want)
		}
	}
	for path, want := range map[string]bool{`C:\Users\taro\OneDrive`: true, `D:\x`: true, `C:\`: false, `C:`: false, `\\fs1\share\x`: false, `C:\a\..\..`: false, `\\?\C:\x`: false, "": false} {
		if got := isFolderOfDrive(path); got != want {
			t.Errorf("isFolderOfDrive(%q) = %v", path, got)
		}
	}
}

// A look that hangs leaves room for other questions, however often it is time for one.
func TestOneLookForSyncFoldersMayHang(t *testing.T) {
	w := New(Options{StatTimeout: 10 * time.Millisecond})
	answer := make(chan struct{})
	defer close(answer)
	for range 2 * maxHanging {
		if _, ok := w.seekClouds(func() []cloud { <-answer; return nil }); ok {
			t.Fatal("it did not wait")
		}
	}
	if _, err := boundedBy(w.guard, time.Minute, func() int { return 1 }); err != nil {
		t.Error(err)
	}
}

func TestWhereSettingsFilesAre(t *testing.T) {
	home := filepath.Join(t.TempDir(), "[taro]")
	for i := range maxConfigs + 2 {
		if err := os.MkdirAll(filepath.Join(home, ".config", fmt.Sprint("onedrive", i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for glob, want := range map[string]int{".config/onedrive*/config": maxConfigs, ".config/x*/config": 0, ".none/*": 0, "a/b": 1} {
		c := cloudConfig{glob: glob}
		got := c.files(home)
		if len(got) != want || want == maxConfigs && got[1] != filepath.Join(home, ".config", "onedrive1", "config") || glob == "a/b" && got[0] != filepath.Join(home, "a", "b") {
			t.Errorf("%s: got %q", glob, got)
		}
	}
}

// A user renames a sync folder again and again: no memory of it stays.
func TestSyncFoldersThatAreRenamedLeaveNothing(t *testing.T) {
	w := newBench(t)
	kept := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var before int64
	last := 0
	for i := range 20_000 {
		w.clouds = []cloud{{fmt.Sprintf("/home/mallory/OneDrive - %050d", i), "OneDrive"}}
		gone, come := w.feed(rootLine)
		if len(come) != 1 || come[0].MountID >= last || i > 0 && (len(gone) != 1 || gone[0].MountID != last) {
			t.Fatalf("%d: gone %+v, come %+v", i, gone, come)
		}
		if last = come[0].MountID; i == 1000 {
			before = kept()
		}
	}
	if more := kept() - before; more > 500<<10 {
		t.Errorf("%d KB stay", more>>10)
	}
	runtime.KeepAlive(w)
}
