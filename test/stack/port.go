package stack

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Listen listens on a port of this machine that a program finds free again when
// it has been away: none of those that the system gives to whoever asks for any.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	var err error
	for range 100 {
		var l net.Listener
		// Linux gives out 32768 and above unless told otherwise, Windows 49152 and above.
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000))); err == nil {
			return l
		}
	}
	t.Fatal(err)
	return nil
}
