package usblog

import "sekisho/internal/cfgmgr"

// present reports whether a device is attached now.
func present(instance string) bool {
	_, err := cfgmgr.Locate(instance)
	return err == nil
}
