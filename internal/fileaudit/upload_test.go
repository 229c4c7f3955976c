package fileaudit

import (
	"strings"
	"testing"
)

func TestUploadsNameTheirTarget(t *testing.T) {
	for _, tt := range []struct {
		args, host string
		ok         bool
	}{
		{"scp -r a b taro@Files.example.jp:/tmp", "files.example.jp", true},
		{"scp a scp://taro@files.example.jp:22/x", "files.example.jp", true},
		{"scp files.example.jp:a .", "", false},
		{"scp a ./x:y", "", false},
		{"scp", "", false},
		{"rsync -a dir/ files.example.jp::module", "files.example.jp", true},
		{"rsync -a dir/ /mnt/usb", "", false},
		{"sftp -b - taro@files.example.jp", "files.example.jp", true},
		{"sftp", "", true},
		{"smbclient //FS01/public -c put", "fs01", true},
		{`smbclient \\fs01\public`, "fs01", true},
		{"curl -T a https://up.example.jp:8443/x", "up.example.jp", true},
		{"curl -T a up.example.jp", "", true},
		{"curl -T a http://[::1]:80/", "::1", true},
		{"curl -T a http://%zz/", "", true},
		{"rclone copy a cloud:dir", "", true},
		{"rclone copy a /mnt/usb", "", false},
	} {
		args := strings.Fields(tt.args)
		host, ok := uploaders[args[0]](args)
		if host != tt.host || ok != tt.ok {
			t.Errorf("%s: got %q %v, want %q %v", tt.args, host, ok, tt.host, tt.ok)
		}
	}
}

func FuzzUploadTargets(f *testing.F) {
	f.Add("scp\x00a\x00b:c")
	f.Add("smbclient\x00//a/b")
	f.Add("curl\x00http://a/")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		for name, to := range uploaders {
			if host, ok := to(args); !ok && host != "" {
				t.Errorf("%s: no target, and host %q", name, host)
			}
		}
	})
}
