// Package winpath brings paths of Windows, which programs and the kernel write in a
// dozen ways, to the one form that events have: `C:\dir\file`, `\\server\share\file`.
//
// All but [Long] works everywhere and asks nobody.
package winpath

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// maxPath bounds a path of Windows, in bytes: 32,767 UTF-16 units (UNICODE_STRING's
// length in bytes is 16 bits wide) are at most three bytes each.
const maxPath = 3 * 32767

// Path is a path of Windows in the one form that events have.
type Path struct {
	// Path is `C:\dir\file` or `\\server\share\file`; that of a stream is
	// `C:\dir\file:stream`. Where no name of a device is known, it is as it came.
	Path   string
	Stream string // of an alternate data stream, without its type; "" is the file itself
	Short  bool   // an element may be the 8.3 name of a longer one: ask [Long]
}

// Names maps devices and volumes in lower case (`\device\harddiskvolume5`,
// `\\?\volume{guid}`, `\systemroot`) to what people call them: "E:", or the folder
// `C:\mnt` that they are mounted on.
type Names map[string]string

// The ways to begin a path with the same meaning, in lower case.
var (
	dosPrefixes = []string{`\\?\`, `\??\`, `\\.\`, `\dosdevices\`, `\global??\`}
	// Redirectors are the drivers of network file systems. Below each lie servers
	// and their shares; in front of these may stand the drive letter
	// and session of the user who mapped it, and the redirector's name after Mup
	// (`\Device\Mup\;LanmanRedirector\;Z:00000000000a1b2c\server\share`).
	Redirectors = []string{`\device\mup\`, `\device\lanmanredirector\`, `\device\webdavredirector\`, `\device\rdpdr\`, `\device\dfsclient\`}
)

// Canonical brings a path of Windows, however the kernel or a program wrote it, to
// one form. It asks nobody: letters keep their case, a share that a letter is
// mapped to is named by server and share if the kernel does so, and 8.3 names are
// recognised only.
//
// Dots and spaces at the end of a name are kept: the kernel gives names as they are
// on the disk, and a program that gets round Win32 (`\\?\`) can make such files.
// UTF-16 that is not well-formed comes as WTF-8 (see DecodeUTF16), so that the file
// can be opened and told from its neighbours; JSON shows it as U+FFFD.
// The canonical form of a canonical path is itself, and none is longer than
// maxPath or, with a name from names, than what it was made of.
func Canonical(raw string, names Names) Path {
	if len(raw) > maxPath {
		raw = raw[:maxPath]
	}
	raw, _, _ = strings.Cut(raw, "\x00")
	p := strings.ReplaceAll(raw, "/", `\`)
	var root, rest string
	for root == "" {
		n, kind := prefixOf(p)
		after := p[n:]
		switch {
		case kind == dosPath && (IsDrive(after) || foldPrefix(after, `unc\`)):
			if p = after; !IsDrive(after) {
				p = `\\` + after[len(`unc\`):]
			}
		case kind == dosPath && foldPrefix(after, `globalroot\`):
			p = after[len("globalroot"):]
		case kind == dosPath && foldPrefix(after, "volume{"):
			end := elementEnd(after, 0)
			volume := `\\?\` + after[:end]
			if to := names[strings.ToLower(volume)]; to != "" && IsDrive(to) {
				p = to + after[end:]
			} else {
				root, rest = volume, after[end:]
			}
		case kind == mupPath:
			for strings.HasPrefix(after, ";") || strings.HasPrefix(after, `\`) {
				after = strings.TrimLeft(after[elementEnd(after, 0):], `\`)
			}
			p = `\\` + after
		case kind == devicePath:
			end := elementEnd(p, n)
			if to := names[strings.ToLower(p[:end])]; to != "" && IsDrive(to) {
				p = to + p[end:]
			} else {
				root, rest = p[:end], p[end:]
			}
		case kind == dosPath: // no file system: a pipe, a disk
			return Path{Path: p}
		case IsDrive(p):
			root, rest = strings.ToUpper(p[:1])+":", p[2:]
		case strings.HasPrefix(p, `\\`):
			server := strings.TrimLeft(p, `\`)
			end := elementEnd(server, 0)
			share := strings.TrimLeft(server[end:], `\`)
			if s := server[:end]; s == "?" || s == "." {
				if next := `\\` + s + `\` + share; len(next) < len(p) {
					p = next
					continue
				}
				return Path{Path: p}
			}
			root, rest = `\\`+server[:end], ""
			if share != "" {
				end = elementEnd(share, 0)
				root, rest = root+`\`+share[:end], share[end:]
			}
		default: // relative
			return Path{Path: p}
		}
	}
	return clean(root, rest)
}

// IsDevice reports whether a path begins with a device's name in the kernel, so that
// Canonical has use for names.
func IsDevice(path string) bool {
	_, kind := prefixOf(path)
	return kind == devicePath
}

type prefixKind uint8

const (
	noPrefix prefixKind = iota
	dosPath
	mupPath
	devicePath
)

// prefixOf returns what a path begins with and how long that is.
func prefixOf(p string) (int, prefixKind) {
	for _, x := range dosPrefixes {
		if foldPrefix(p, x) {
			return len(x), dosPath
		}
	}
	for _, x := range Redirectors {
		if foldPrefix(p, x) {
			return len(x), mupPath
		}
	}
	if foldPrefix(p, `\device\`) {
		return len(`\device\`), devicePath
	}
	if foldPrefix(p, `\systemroot\`) {
		return 1, devicePath
	}
	return 0, noPrefix
}

// clean joins a root with what follows it: no empty elements, "." and "..", no
// streams but that of the last element.
func clean(root, rest string) Path {
	w := Path{}
	var elems []string
	for all := strings.Split(rest, `\`); len(all) > 0; all = all[1:] {
		name, stream, _ := strings.Cut(all[0], ":")
		last := len(all) == 1
		switch name {
		case "", ".":
			if name == "." || !last || stream == "" {
				continue
			}
		case "..":
			if len(elems) > 0 {
				elems = elems[:len(elems)-1]
			}
			continue
		}
		if isShort(name) {
			w.Short = true
		}
		if last {
			if w.Stream = streamName(stream); w.Stream != "" {
				name += ":" + w.Stream
			} else if name == "" {
				continue
			}
		}
		elems = append(elems, name)
	}
	w.Path = root + `\` + strings.Join(elems, `\`)
	if len(elems) == 0 && root[0] == '\\' {
		w.Path = root
	}
	return w
}

// streamName is the name of a stream without its type: of "secret:$DATA" it is
// "secret", of ":$DATA" and of a folder's ":$I30:$INDEX_ALLOCATION" it is "".
func streamName(s string) string {
	for {
		s = strings.TrimRight(s, ":")
		i := strings.LastIndexByte(s, ':')
		switch kind := s[i+1:]; {
		case i < 0:
			if strings.EqualFold(s, "$DATA") {
				return ""
			}
			return s
		case strings.EqualFold(kind, "$INDEX_ALLOCATION"):
			return ""
		case !strings.EqualFold(kind, "$DATA"):
			return s
		}
		s = s[:i]
	}
}

// isShort reports whether a name may be the 8.3 name of a longer one: at most eight
// characters with a tilde among them, as a rule before a number at their end, and
// three after a dot.
func isShort(name string) bool {
	base, ext, _ := strings.Cut(name, ".")
	tilde := strings.LastIndexByte(base, '~')
	return tilde > 0 && tilde < len(base)-1 && utf8.RuneCountInString(base) <= 8 && utf8.RuneCountInString(ext) <= 3
}

// Share returns the share that a canonical path lies on (`\\server\share`), ""
// if on none.
func Share(path string) string {
	if !strings.HasPrefix(path, `\\`) {
		return ""
	}
	server := elementEnd(path, 2)
	if server == 2 || server >= len(path)-1 || path[2:server] == "?" || path[2:server] == "." {
		return ""
	}
	return path[:elementEnd(path, server+1)]
}

// WithoutStream is a canonical path of Windows without that of a stream.
func WithoutStream(path string) string {
	last := strings.LastIndexByte(path, '\\') + 1
	if i := strings.IndexByte(path[last:], ':'); i > 0 {
		return path[:last+i]
	}
	return path
}

// Verbatim is a canonical path as Win32 takes it without looking into it, so that
// long names and dots at their end do no harm.
func Verbatim(path string) string {
	switch {
	case IsDrive(path):
		return `\\?\` + path
	case Share(path) != "":
		return `\\?\UNC` + path[1:]
	case foldPrefix(path, `\device\`):
		path = `\\?\GLOBALROOT` + path
		if elementEnd(path, len(`\\?\GLOBALROOT\Device\`)) == len(path) {
			path += `\` // the folder, not the device
		}
	case foldPrefix(path, `\\?\volume{`) && elementEnd(path, len(`\\?\`)) == len(path):
		path += `\`
	}
	return path
}

// IsDrive reports whether a path begins with a drive letter.
func IsDrive(p string) bool {
	return len(p) >= 2 && p[1] == ':' && (p[0]|0x20) >= 'a' && (p[0]|0x20) <= 'z' && (len(p) == 2 || p[2] == '\\')
}

// elementEnd is where the element that begins at an index ends.
func elementEnd(p string, from int) int {
	if i := strings.IndexByte(p[from:], '\\'); i >= 0 {
		return from + i
	}
	return len(p)
}

// foldPrefix reports whether a path begins with a prefix of lower-case ASCII,
// whatever its own case is.
func foldPrefix(p, prefix string) bool {
	if len(p) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := p[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

// DecodeUTF16 decodes little-endian UTF-16 up to its end or a zero. A surrogate
// without its other half becomes three bytes as if it were a character (WTF-8,
// simonsapin.github.io/wtf-8), as in Go's own names of files on Windows.
func DecodeUTF16(b []byte) string {
	out := make([]byte, 0, len(b))
	for ; len(b) >= 2; b = b[2:] {
		u := rune(binary.LittleEndian.Uint16(b))
		switch {
		case u == 0:
			return string(out)
		case u < 0xd800 || u > 0xdfff:
			out = utf8.AppendRune(out, u)
			continue
		case u < 0xdc00 && len(b) >= 4:
			if v := rune(binary.LittleEndian.Uint16(b[2:])); v >= 0xdc00 && v <= 0xdfff {
				out = utf8.AppendRune(out, (u-0xd800)<<10|(v-0xdc00)+0x10000)
				b = b[2:]
				continue
			}
		}
		out = append(out, 0xe0|byte(u>>12), 0x80|byte(u>>6)&0x3f, 0x80|byte(u)&0x3f)
	}
	return string(out)
}
