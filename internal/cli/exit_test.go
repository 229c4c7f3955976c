package cli

import (
	"errors"
	"fmt"
	"testing"
)

func TestTheExitCodeNearestToTheCauseCounts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, OK},
		{errors.New("x"), Failure},
		{Exit(Usage, errors.New("x")), Usage},
		{Exit(Failure, fmt.Errorf("service install: %w", Exit(Usage, errors.New("x")))), Usage},
		{Exit(Failure, fmt.Errorf("service status: %w", Exit(Found, nil))), Found}, // was told
	} {
		if got := Report("test", c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}
