package agent

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"sekisho/internal/config"
)

// maxBundleFile is how much of one log goes into a support bundle: its end.
const maxBundleFile = 4 << 20

// BundleFile is one file of a support bundle.
type BundleFile struct {
	Name string
	Data []byte
}

// Bundle collects what a supporter needs: status, checks, settings without
// secrets, logs, crash reports. Names of people, accounts and PCs become
// pseudonyms unless withNames: the same name has the same pseudonym within the
// bundle, and none can be turned back. Nothing is sent anywhere.
func Bundle(ctx context.Context, configFile string, version any, withNames bool) ([]BundleFile, error) {
	var files []BundleFile
	add := func(name string, data []byte) { files = append(files, BundleFile{name, data}) }
	addJSON := func(name string, v any) {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			b = []byte(err.Error())
		}
		add(name, append(b, '\n'))
	}
	addJSON("version.json", version)
	addJSON("doctor.json", Doctor(ctx, configFile))
	cfg, err := loadSettings(configFile)
	if err != nil {
		add("settings-problems.txt", []byte(err.Error()+"\n"))
		cfg = config.DefaultAgent()
	} else {
		var b bytes.Buffer
		for _, s := range cfg.Settings() {
			fmt.Fprintf(&b, "%s: %s\t# %s\n", s.Path, s.Value, s.Origin)
		}
		add("settings.txt", b.Bytes())
	}
	sctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if st, err := Dial(cfg.StateDir).Status(sctx); err == nil {
		addJSON("status.json", st)
	} else {
		add("status.txt", []byte(err.Error()+"\n"))
	}
	for _, pattern := range []string{filepath.Join(cfg.Log.Dir, "agent*.log"), filepath.Join(cfg.StateDir, "crash-*.txt")} {
		found, _ := filepath.Glob(pattern)
		for _, p := range found {
			if data, err := tail(p, maxBundleFile); err == nil {
				add("logs/"+filepath.Base(p), data)
			}
		}
	}
	if !withNames {
		hide := pseudonyms(cfg)
		for i := range files {
			files[i].Data = hide(files[i].Data)
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Name < files[j].Name })
	return files, nil
}

// WriteBundle writes the files as a ZIP archive.
func WriteBundle(w io.Writer, files []BundleFile) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.Name, Method: zip.Deflate, Modified: time.Now()}
		h.SetMode(0o600)
		fw, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := fw.Write(f.Data); err != nil {
			return err
		}
	}
	return z.Close()
}

func tail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, n))
}

// pseudonyms answers a function that replaces the names it can know: this PC's,
// those of the people in the settings, and the accounts of this PC.
func pseudonyms(cfg *config.Agent) func([]byte) []byte {
	salt := rand.Text()          // kept nowhere: nobody can try names against the pseudonyms
	names := map[string]string{} // by the name in lower case
	put := func(kind, name string) {
		if len(name) < 2 || name == "root" {
			return
		}
		name = string(bytes.Map(func(r rune) rune {
			if r < 0x80 {
				return rune(lower(byte(r)))
			}
			return r
		}, []byte(name)))
		sum := sha256.Sum256([]byte(salt + name))
		names[name] = kind + "-" + hex.EncodeToString(sum[:3])
	}
	if h, err := os.Hostname(); err == nil {
		put("pc", h)
	}
	for _, p := range cfg.People {
		put("person", p.ID)
		for _, acct := range p.Accounts {
			put("user", acct)
			if _, after, ok := strings.Cut(acct, `\`); ok {
				put("user", after)
			}
		}
	}
	for _, name := range localAccounts() {
		put("user", name)
	}
	// By first byte, the longest first, so that a name within a name does not win.
	var first [256][]string
	for _, n := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) }) {
		first[n[0]] = append(first[n[0]], n)
	}
	return func(text []byte) []byte {
		out := make([]byte, 0, len(text))
	next:
		for i := 0; i < len(text); {
			for _, n := range first[lower(text[i])] {
				if len(text)-i >= len(n) && equalFold(text[i:i+len(n)], n) {
					out = append(out, names[n]...)
					i += len(n)
					continue next
				}
			}
			out = append(out, text[i])
			i++
		}
		return out
	}
}

// lower is an ASCII letter in lower case, any other byte as it is.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// equalFold compares text with a name in lower case, without regard to the case
// of ASCII letters.
func equalFold(text []byte, name string) bool {
	for i := range text {
		if lower(text[i]) != name[i] {
			return false
		}
	}
	return true
}

// localAccounts are the names of people's accounts and home folders here.
func localAccounts() []string {
	var names []string
	if b, err := os.ReadFile("/etc/passwd"); err == nil {
		for line := range strings.Lines(string(b)) {
			f := strings.Split(line, ":")
			if len(f) > 5 && (strings.HasPrefix(f[5], "/home/") || len(f[2]) >= 4) && f[0] != "nobody" {
				names = append(names, f[0])
			}
		}
	}
	for _, dir := range []string{"/home", `C:\Users`} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if n := e.Name(); n != "Public" && n != "Default" && n != "All Users" && n != "lost+found" {
				names = append(names, n)
			}
		}
	}
	return names
}
