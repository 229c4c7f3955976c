package printwatch

import "golang.org/x/sys/windows/registry"

// namesAllowed reports whether the policy "Allow job name in event logs" is enabled
// (Printing.admx, ShowJobTitleInEventLogs).
func namesAllowed() bool {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Policies\Microsoft\Windows NT\Printers`, registry.QUERY_VALUE)
	if err != nil {
		return false
	}
	defer k.Close()
	v, _, err := k.GetIntegerValue("ShowJobTitleInEventLogs")
	return err == nil && v == 1
}
