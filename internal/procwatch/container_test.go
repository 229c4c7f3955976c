package procwatch

import (
	"strings"
	"testing"
)

func TestContainerID(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for in, want := range map[string]string{
		"docker-" + id + ".scope":                                                  id,
		"0::/system.slice/docker-" + id + ".scope/init.scope\n":                    id,
		"12:pids:/docker/" + id + "\n0::/\n":                                       id,
		"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope\n": id,
		"0::/machine.slice/libpod-" + id + ".scope/container\n":                    id,
		id: id,
		"/docker/" + id + "/docker/" + strings.Repeat("f", 64): id,
		"": "",
		"0::/user.slice/user-1000.slice/session-3.scope\n": "",
		"docker-" + id + "0.scope":                         "",
		"docker-" + id[1:]:                                 "",
		"x" + id:                                           "",
		strings.ToUpper(id):                                "",
	} {
		if got := containerID(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzContainerID(f *testing.F) {
	f.Add("0::/system.slice/docker-" + strings.Repeat("a", 64) + ".scope\n")
	f.Fuzz(func(t *testing.T, s string) {
		if id := containerID(s); id != "" && (len(id) != containerIDLen || !strings.Contains(s, id)) {
			t.Errorf("%q in %q", id, s)
		}
	})
}
