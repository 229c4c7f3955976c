// Package peer says who is at the other end of a request. The console's pages,
// its API and the agents' API go by it for limits and for the audit log, so that
// whom they believe is decided in one place: the connection, never a header that
// a proxy, or anybody, may have set. It imports nothing of ours.
package peer

import (
	"net"
	"net/http"
	"net/netip"
)

// Address is the peer's address without its port; an IPv4 address that is
// written as an IPv6 one is told as IPv4. What is no address and port is
// returned as it is.
func Address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return host
}

// Network is what one caller can change at will of an Address: nothing of an
// IPv4 one, the last 64 bits of an IPv6 one. Limits count by it.
func Network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is4() {
		return address
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
}
