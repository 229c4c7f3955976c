package agent

import (
	"strings"

	"golang.org/x/sys/windows/registry"
)

// policyKey is where group policy and device management keep what they say to
// the agent; only administrators write there.
const policyKey = `SOFTWARE\Policies\Sekisho\Agent`

// policyToken is the enrolment token of group policy, and where it stands.
func policyToken() (token, from string) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, policyKey, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return "", ""
	}
	defer k.Close()
	s, _, err := k.GetStringValue("EnrollToken")
	if err != nil || len(s) > maxToken {
		return "", ""
	}
	return strings.TrimSpace(s), `HKLM\` + policyKey + `\EnrollToken`
}
