package volume

import (
	"os"
	"strings"

	"golang.org/x/sys/windows/registry"
)

// oneDriveAccounts is where OneDrive keeps its accounts in a user's part of the
// registry: Personal, Business1 and so on, each with its folder in UserFolder.
const oneDriveAccounts = `Software\Microsoft\OneDrive\Accounts`

// accountClouds returns the folders of OneDrive's accounts, those too that it has
// not registered (Files On-Demand switched off), of all users who are logged on.
func accountClouds() (all []cloud) {
	users, _ := registry.USERS.ReadSubKeyNames(maxHomes) // io.EOF if there are fewer
	for _, user := range users {
		if !strings.HasPrefix(user, "S-1-") || strings.HasSuffix(user, "_Classes") {
			continue
		}
		root, err := registry.OpenKey(registry.USERS, user+`\`+oneDriveAccounts, registry.ENUMERATE_SUB_KEYS)
		if err != nil {
			continue
		}
		accounts, _ := root.ReadSubKeyNames(maxSyncRoots)
		for _, account := range accounts {
			k, err := registry.OpenKey(root, account, registry.QUERY_VALUE)
			if err != nil {
				continue
			}
			path, _, err := k.GetStringValue("UserFolder")
			k.Close()
			if path = strings.TrimRight(path, `\`); err != nil || !isFolderOfDrive(path) {
				continue
			}
			if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
				all = append(all, cloud{path, cloudNames["OneDrive"]})
			}
		}
		root.Close()
	}
	return all
}
