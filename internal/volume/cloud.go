package volume

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of the search for folders of sync programs. Judgements.
const (
	maxCloudConfig = 64 << 10 // bytes read of one settings file
	maxHomes       = 1000
	maxClouds      = 256
	maxHomeEntries = 4096 // of one home folder
	maxConfigs     = 8    // settings files of one kind in a home folder
)

// cloud is a folder on a disk that a program keeps in step with a cloud.
type cloud struct {
	path     string
	provider string
}

// cloudNames maps what the folders of sync programs are called, up to an
// addition in parentheses or after a dash ("OneDrive - Example"), to the provider.
var cloudNames = map[string]string{
	"OneDrive": "OneDrive", "Dropbox": "Dropbox", "Google Drive": "Google Drive", "GoogleDrive": "Google Drive", "My Drive": "Google Drive",
	"Insync": "Google Drive", "Nextcloud": "Nextcloud", "ownCloud": "ownCloud", "MEGA": "MEGA", "MEGAsync": "MEGA", "Box": "Box", "Box Sync": "Box",
	"pCloudDrive": "pCloud", "pCloud Drive": "pCloud", "pCloud Sync": "pCloud", "Seafile": "Seafile", "SynologyDrive": "Synology Drive", "Yandex.Disk": "Yandex Disk", "iCloudDrive": "iCloud",
}

// cloudConfig is a settings file of a sync program, below a home folder, that
// names a folder elsewhere.
type cloudConfig struct {
	glob, provider string
	parse          func([]byte) []string
}

// linuxConfigs are those of Linux.
var linuxConfigs = []cloudConfig{
	{".config/onedrive*/config", "OneDrive", parseOneDrive},
	{".dropbox/info.json", "Dropbox", parseDropbox},
	{".config/Nextcloud/nextcloud.cfg", "Nextcloud", parseNextcloud},
	{".config/ownCloud/owncloud.cfg", "ownCloud", parseNextcloud},
}

// findClouds returns the folders of sync programs in the home folders of root
// ("/"). skip says which homes are not looked into.
func findClouds(root string, skip func(home string) bool) []cloud {
	homes := []string{filepath.Join(root, "root")}
	for _, name := range someNames(filepath.Join(root, "home"), maxHomes) {
		homes = append(homes, filepath.Join(root, "home", name))
	}
	return cloudsIn(homes, linuxConfigs, skip)
}

// cloudsIn returns the folders of sync programs in home folders, sorted by path:
// those that are called so and those that the programs' settings name, which have
// to lie in the same home.
func cloudsIn(homes []string, configs []cloudConfig, skip func(home string) bool) []cloud {
	var all []cloud
	seen := map[string]bool{}
	for _, home := range homes {
		if skip(home) {
			continue
		}
		add := func(path, provider string) {
			path = filepath.Clean(path)
			if !strings.HasPrefix(path, home+string(filepath.Separator)) || seen[path] || len(all) >= maxClouds {
				return
			}
			if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
				seen[path] = true
				all = append(all, cloud{path, provider})
			}
		}
		for _, name := range someNames(home, maxHomeEntries) {
			if p := cloudNames[plainName(name)]; p != "" {
				add(filepath.Join(home, name), p)
			}
		}
		for _, c := range configs {
			for _, file := range c.files(home) {
				for _, p := range c.parse(readSome(file)) {
					if rest, ok := strings.CutPrefix(p, "~/"); ok {
						p = filepath.Join(home, rest)
					}
					add(p, c.provider)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b cloud) int { return strings.Compare(a.path, b.path) })
	return all
}

// files returns where settings files may be in a home folder. It is not left to
// filepath.Glob, which a pipe in a folder's place holds up.
func (c *cloudConfig) files(home string) []string {
	found := []string{home}
	for part := range strings.SplitSeq(c.glob, "/") {
		var next []string
		for _, dir := range found {
			names := []string{part}
			if strings.Contains(part, "*") {
				names = slices.DeleteFunc(someNames(dir, maxHomeEntries), func(name string) bool {
					ok, _ := filepath.Match(part, name)
					return !ok
				})
				slices.Sort(names)
			}
			for _, name := range names {
				next = append(next, filepath.Join(dir, name))
			}
		}
		found = next[:min(len(next), maxConfigs)]
	}
	return found
}

// plainName is a folder's name without what programs append for an account.
func plainName(name string) string {
	name, _, _ = strings.Cut(name, " - ")
	name, _, _ = strings.Cut(name, " (")
	return name
}

// someNames lists names in a folder, so many at most.
func someNames(dir string, limit int) []string {
	f, err := openFolder(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(limit)
	return names
}

// readSome reads the beginning of a settings file.
func readSome(name string) []byte {
	f, err := openFile(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxCloudConfig))
	return b
}

// seekClouds looks for folders of sync programs; false if that does not answer. While
// one look hangs there is no other, which would take one more of the few that may.
func (w *Watcher) seekClouds(look func() []cloud) ([]cloud, bool) {
	if w.seeking.Load() {
		return nil, false
	}
	found, err := bounded(w.guard, func() []cloud {
		w.seeking.Store(true)
		defer w.seeking.Store(false)
		return look()
	})
	return found, err == nil
}

// parseOneDrive reads `sync_dir = "~/OneDrive"` (abraunegg's client).
func parseOneDrive(b []byte) []string {
	return settings(b, func(key string) bool { return key == "sync_dir" })
}

// parseNextcloud reads `0\Folders\1\localPath=/home/taro/Nextcloud/`.
func parseNextcloud(b []byte) []string {
	return settings(b, func(key string) bool { return strings.HasSuffix(key, `\localPath`) })
}

// settings returns the values of lines "key = value" whose key is wanted.
func settings(b []byte, wanted func(key string) bool) (values []string) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() && len(values) < maxClouds {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if value = strings.Trim(strings.TrimSpace(value), `"`); ok && value != "" && wanted(strings.TrimSpace(key)) {
			values = append(values, value)
		}
	}
	return values
}

// parseDropbox reads {"personal": {"path": "/home/taro/Dropbox", ...}, ...}.
func parseDropbox(b []byte) (paths []string) {
	var accounts map[string]struct {
		Path string `json:"path"`
	}
	if json.Unmarshal(b, &accounts) != nil {
		return nil
	}
	for _, a := range accounts {
		if a.Path != "" {
			paths = append(paths, a.Path)
		}
	}
	return paths
}

// syncProvider returns who keeps a folder in step with a cloud, by the name under
// which it is registered with Windows' Cloud Files API:
// "OneDrive!S-1-5-21-...!Business1", "Dropbox!S-1-5-21-...!Personal". A name that
// is not known stands for itself.
func syncProvider(key string) string {
	name, _, _ := strings.Cut(key, "!")
	for known, provider := range cloudNames {
		if strings.EqualFold(known, name) {
			return provider
		}
	}
	return name
}

// isFolderOfDrive reports whether a path is that of a folder on a drive with a
// letter, and not of the drive as a whole.
func isFolderOfDrive(path string) bool {
	return len(path) > 3 && path[1] == ':' && path[2] == '\\' && !strings.Contains(path, `\..`)
}
