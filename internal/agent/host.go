package agent

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"sekisho/internal/event"

	"github.com/google/uuid"
	"github.com/shirou/gopsutil/v3/host"
)

// Machine tells who this PC is. The id is stable over restarts and
// reinstallations of the agent: a hash of the system's own machine id (systemd
// asks programs not to show that id itself), or, where the system has none, a
// random one kept in stateDir.
func Machine(stateDir string) (h event.Host, osVersion string, err error) {
	h.OSType = runtime.GOOS
	if h.Name, err = os.Hostname(); err != nil {
		return h, "", fmt.Errorf("host name: %w", err)
	}
	id := machineID()
	if id == "" {
		if id, err = ownID(filepath.Join(stateDir, "host-id")); err != nil {
			return h, "", err
		}
	}
	sum := sha256.Sum256([]byte("sekisho host id\n" + id))
	sum[6] = sum[6]&0x0f | 0x80 // UUID version 8
	sum[8] = sum[8]&0x3f | 0x80
	h.ID = uuid.UUID(sum[:16]).String()
	if info, err := host.Info(); err == nil {
		osVersion = strings.TrimSpace(info.Platform + " " + info.PlatformVersion)
	}
	return h, osVersion, nil
}

// machineID is the system's, "" if it has none. On Linux only machine-id(5)
// counts: gopsutil prefers the DMI UUID, which only root can read, and the id
// must not depend on who asks.
func machineID() string {
	if runtime.GOOS != "linux" {
		id, _ := host.HostID()
		return id
	}
	for _, p := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(p); err == nil {
			if s := strings.TrimSpace(string(b)); len(s) == 32 {
				return s
			}
		}
	}
	return ""
}

// ownID reads the id kept at path, or makes one.
func ownID(path string) (string, error) {
	if b, err := os.ReadFile(path); err == nil {
		if id, err := uuid.ParseBytes(b); err == nil {
			return id.String(), nil
		}
	}
	id := uuid.NewString()
	if err := os.WriteFile(path, []byte(id), 0o600); err != nil {
		return "", fmt.Errorf("keep host id: %w", err)
	}
	return id, nil
}
