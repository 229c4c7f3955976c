package procwatch

import "strings"

// containerIDLen is the length of the ids that Docker, containerd, CRI-O and
// Podman give: 32 bytes in lower-case hex.
const containerIDLen = 64

// containerID finds the id of a container in the path of a cgroup, or in the
// lines of /proc/PID/cgroup: in docker-ID.scope, libpod-ID.scope,
// cri-containerd-ID.scope, .../docker/ID and the like. Of nested containers it is
// the outermost, which the machine knows. "" if there is none.
func containerID(cgroup string) string {
	run := 0
	for i := 0; i <= len(cgroup); i++ {
		if i < len(cgroup) && strings.IndexByte("0123456789abcdef", cgroup[i]) >= 0 {
			run++
			continue
		}
		// A longer or shorter word is something else's.
		if run == containerIDLen {
			if before := i - run - 1; before < 0 || cgroup[before] == '/' || cgroup[before] == '-' || cgroup[before] == ':' {
				return cgroup[i-run : i]
			}
		}
		run = 0
	}
	return ""
}
