package volume

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"sekisho/internal/event"
)

// lookClouds is how often folders of sync programs are looked for.
const lookClouds = time.Minute

// windowsConfigs are the settings files of sync programs that name a folder.
var windowsConfigs = []cloudConfig{
	{"AppData/Local/Dropbox/info.json", "Dropbox", parseDropbox},
	{"AppData/Roaming/Dropbox/info.json", "Dropbox", parseDropbox},
	{"AppData/Roaming/Nextcloud/nextcloud.cfg", "Nextcloud", parseNextcloud},
	{"AppData/Roaming/ownCloud/owncloud.cfg", "ownCloud", parseNextcloud},
}

// lookForClouds looks for folders of sync programs. A look that hangs changes
// nothing.
func (w *Watcher) lookForClouds() {
	found, ok := w.seekClouds(func() []cloud {
		all := registeredClouds()
		for _, c := range slices.Concat(accountClouds(), homeClouds()) {
			if !slices.ContainsFunc(all, func(o cloud) bool { return strings.EqualFold(o.path, c.path) }) {
				all = append(all, c)
			}
		}
		return all[:min(len(all), maxClouds)]
	})
	if ok {
		w.clouds = found
	}
}

// homeClouds returns those in the users' profiles, C:\Users\*.
func homeClouds() []cloud {
	profiles, err := windows.KnownFolderPath(windows.FOLDERID_UserProfiles, 0)
	if err != nil {
		return nil
	}
	var homes []string
	for _, name := range someNames(profiles, maxHomes) {
		homes = append(homes, filepath.Join(profiles, name))
	}
	return cloudsIn(homes, windowsConfigs, func(string) bool { return false })
}

// syncRoots is where Windows keeps the folders of all programs that use its Cloud
// Files API, wherever they lie.
const syncRoots = `SOFTWARE\Microsoft\Windows\CurrentVersion\Explorer\SyncRootManager`

// maxSyncRoots bounds the folders of one registration: one for each user of it.
const maxSyncRoots = 64

// registeredClouds returns those.
func registeredClouds() (all []cloud) {
	root, err := registry.OpenKey(registry.LOCAL_MACHINE, syncRoots, registry.ENUMERATE_SUB_KEYS)
	if err != nil {
		return nil
	}
	defer root.Close()
	names, _ := root.ReadSubKeyNames(maxClouds) // io.EOF if there are fewer
	for _, name := range names {
		k, err := registry.OpenKey(root, name+`\UserSyncRoots`, registry.QUERY_VALUE)
		if err != nil {
			continue
		}
		users, _ := k.ReadValueNames(maxSyncRoots)
		for _, user := range users {
			path, _, err := k.GetStringValue(user)
			if path = strings.TrimRight(path, `\`); err != nil || !isFolderOfDrive(path) {
				continue
			}
			if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
				all = append(all, cloud{path, syncProvider(name)})
			}
		}
		k.Close()
	}
	return all
}

// withClouds adds the folders of sync programs to the volumes they lie on.
func (w *Watcher) withClouds(list []Volume) []Volume {
	if len(w.clouds) == 0 {
		return list
	}
	disks := newMounts(list)
	for _, c := range w.clouds {
		if i, ok := disks.lookup(windowsKey(c.path)); ok && list[i].Kind == event.VolumeLocal {
			v := folder(c, &list[i])
			v.MountName, v.DOSName, v.ParentID, v.Root = "", c.path, 0, `\`
			list = append(list, v)
		}
	}
	return list
}
