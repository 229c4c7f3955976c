package endpoint

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestReasonsInJapanese(t *testing.T) {
	for reason, want := range map[string]string{
		"":               "",
		"not running":    "動いていません",
		"boom":           "boom",
		"pipe; 犬":        "pipe; 犬",
		"%v; %s %!d(x) ": "%v; %s %!d(x) ",
		"devices are announced, but sysfs cannot be read: stat /sys/bus: permission denied":                                                                                    "機器の接続は通知されますが、sysfs を読めません: stat /sys/bus: permission denied",
		"kernel notifications refused (in a user namespace the kernel does not announce devices); sysfs is looked through each 1s, shorter visits are missed":                  "カーネルの通知を受けられません（ユーザー名前空間の中では、カーネルが機器を知らせません）。sysfs を 1s ごとに調べるので、それより短い接続は見逃します",
		"no systemd-logind (connect to the system bus: system bus not found); logons are read from /var/log/wtmp every 2s; locks of the screen and idle desktops are not seen": "systemd-logind がありません（connect to the system bus: system bus not found）。/var/log/wtmp を 2s ごとに読みます。画面のロックと、デスクトップの放置は見えません",
		"watch /mnt/dead: file system does not answer; watch /mnt/refused: permission denied":                                                                                  "/mnt/dead を監視できません: ファイルシステムが応答しません、/mnt/refused を監視できません: permission denied",
		"without sys_admin, sys_ptrace not everything can be seen":                                                                                                             "sys_admin, sys_ptrace がないので、見えないものがあります",
		"without CAP_NET_ADMIN the kernel keeps 416 KiB of device notifications for the agent, not 16384: of many devices at once those that leave soon may be missed":         "CAP_NET_ADMIN がないため、カーネルがエージェントのために溜める機器の通知は 16384 KiB でなく 416 KiB です。多くの機器が同時に着脱されると、すぐに外されたものを見逃すことがあります",
		"drives are looked at each second, shorter visits are missed: not on Wine":                                                                                             "ドライブを毎秒調べるので、それより短い接続は見逃します: not on Wine",
	} {
		s := Sensor{Reason: reason}
		if got := s.Why("ja"); got != want {
			t.Errorf("%q:\n got %q\nwant %q", reason, got, want)
		}
		if got := s.Why("en"); got != reason {
			t.Errorf("in English: %q, want %q", got, reason)
		}
	}
}

// What a PC says of itself to the console may be anything.
func TestAReasonWithoutEndTakesNoTime(t *testing.T) {
	for _, part := range []string{"; ", "watch a: ", "watch a: watch b: ; ", "no systemd-logind (", "(%v); %s"} {
		s := Sensor{Reason: strings.Repeat(part, maxReason/len(part))}
		began := time.Now()
		if s.Why("ja"); time.Since(began) > 30*time.Second {
			t.Errorf("%q, again and again, takes %v", part, time.Since(began))
		}
	}
}

// What is translated is what some sensor says: every piece stands in a source.
func TestReasonsAreThoseThatSensorsSay(t *testing.T) {
	var all strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasPrefix(filepath.Base(path), "reason") {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	apart := regexp.MustCompile(verbs.String() + "|; |^inotify: ") // where sources put things together
	for _, x := range said {
		for _, piece := range apart.Split(x.en, -1) {
			if piece = strings.Trim(piece, " ;:"); len(piece) > 3 && !strings.Contains(all.String(), piece) {
				t.Errorf("no source says %q", piece)
			}
		}
		if n := len(verbs.FindAllString(x.en, -1)); n != strings.Count(x.ja, "%[") || strings.Count(x.ja, "%") != n {
			t.Errorf("%q: what is put in is not what is put into %q", x.en, x.ja)
		}
	}
}

func FuzzWhy(f *testing.F) {
	for _, x := range said {
		f.Add(x.en)
	}
	f.Fuzz(func(t *testing.T, reason string) {
		s := Sensor{Reason: reason}
		if got := s.Why("ja"); (got == "") != (reason == "") || strings.Contains(got, "%!") && !strings.Contains(reason, "%!") {
			t.Errorf("%q: %q", reason, got)
		}
	})
}
