package peer_test

import (
	"net/http"
	"testing"

	"sekisho/internal/peer"
)

func TestWhoIsAtTheOtherEnd(t *testing.T) {
	for remote, want := range map[string]struct{ address, network string }{
		"192.0.2.7:51000":               {"192.0.2.7", "192.0.2.7"},
		"[::ffff:192.0.2.7]:51000":      {"192.0.2.7", "192.0.2.7"},
		"[2001:db8:1:2:3:4:5:6]:51000":  {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		"[fe80::1%eth0]:51000":          {"fe80::1%eth0", "fe80::/64"},
		"@":                             {"@", "@"}, // a Unix socket
		"pipe:1":                        {"pipe", "pipe"},
		"":                              {"", ""},
		"[2001:db8:1:2:ffff::1%x]:http": {"2001:db8:1:2:ffff::1%x", "2001:db8:1:2::/64"},
	} {
		r := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Real-Ip": {"203.0.113.9"}}}
		address := peer.Address(r)
		if network := peer.Network(address); address != want.address || network != want.network {
			t.Errorf("%q: got %q of %q, want %q of %q", remote, address, network, want.address, want.network)
		}
	}
}
