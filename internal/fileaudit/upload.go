package fileaudit

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// uploaders are programs that send away what they read, with how their arguments
// name the other end: its host, "" if that is not to be seen, and whether there
// is one at all.
var uploaders = map[string]func(args []string) (host string, ok bool){
	"scp":       lastHost,
	"rsync":     lastHost,
	"sftp":      sftpHost,
	"smbclient": smbHost,
	"curl":      urlHost,
	"wget":      urlHost,
	"rclone":    func(args []string) (string, bool) { _, ok := lastHost(args); return "", ok }, // a name of its settings
	"lftp":      urlHost,
	"aws":       func(args []string) (string, bool) { return "", true },
	"s3cmd":     func(args []string) (string, bool) { return "", true },
	"gsutil":    func(args []string) (string, bool) { return "", true },
	"azcopy":    urlHost,
}

// hostOf returns the host of "user@host:path", "host::module" or a URL.
func hostOf(arg string) (string, bool) {
	if strings.Contains(arg, "://") {
		u, err := url.Parse(arg)
		if err != nil || u.Hostname() == "" {
			return "", false
		}
		return strings.ToLower(u.Hostname()), true
	}
	host, _, ok := strings.Cut(arg, ":")
	if !ok || strings.Contains(host, "/") {
		return "", false // a local path may have a colon after a slash
	}
	host = host[strings.LastIndexByte(host, '@')+1:]
	return strings.ToLower(host), host != ""
}

// lastHost is for programs that name the target last.
func lastHost(args []string) (string, bool) {
	if len(args) < 3 {
		return "", false
	}
	return hostOf(args[len(args)-1])
}

// sftpHost: the first argument that is no option, "user@host" or "user@host:path".
func sftpHost(args []string) (string, bool) {
	for _, a := range args[min(1, len(args)):] {
		if strings.HasPrefix(a, "-") || !strings.ContainsAny(a, "@:") {
			continue
		}
		if host, ok := hostOf(a); ok {
			return host, true
		}
		return strings.ToLower(a[strings.LastIndexByte(a, '@')+1:]), true
	}
	return "", true
}

// smbHost: "//server/share".
func smbHost(args []string) (string, bool) {
	for _, a := range args[min(1, len(args)):] {
		a = strings.ReplaceAll(a, `\`, "/")
		if rest, ok := strings.CutPrefix(a, "//"); ok {
			host, _, _ := strings.Cut(rest, "/")
			return strings.ToLower(host), true
		}
	}
	return "", true
}

// urlHost: the last argument that is a URL.
func urlHost(args []string) (string, bool) {
	for i := len(args) - 1; i > 0; i-- {
		if strings.Contains(args[i], "://") {
			if host, ok := hostOf(args[i]); ok {
				return host, true
			}
		}
	}
	return "", true
}

// uploaded tells that a program that sends files away read one that is of
// interest. That it arrived is not known.
func (c *core) uploaded(ctx context.Context, r *record, v *volume.Volume, label string, x *read) {
	p := c.procs.of(r.pid, r.at).proc
	to := uploaders[program(p)]
	if to == nil || len(p.Args) == 0 {
		return
	}
	host, ok := to(p.Args)
	if !ok {
		return
	}
	e := c.event(event.FileUploaded, r, v, label)
	e.Copy = c.copyOf(r, filepath.Base(r.path), &found{cargo: x.cargo, path: r.path, way: bySending, whole: x.cargo.packed}, true)
	e.Network = &event.Network{DestinationDomain: host, Bytes: event.Some(max(r.size, 0))}
	c.send(ctx, e)
}
