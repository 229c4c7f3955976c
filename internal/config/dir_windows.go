package config

import "golang.org/x/sys/windows"

// programData is the folder that Windows has for programs' data. The environment
// is not asked: a service's may differ from the installer's, and a user can set his own.
func programData() string {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	if err != nil {
		return `C:\ProgramData`
	}
	return dir
}
