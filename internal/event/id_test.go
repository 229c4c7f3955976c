package event

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestIDsAreUUIDsOfTheirMoment(t *testing.T) {
	at := time.Unix(1_750_000_000, 123_456_789)
	seen := map[string]bool{}
	for n := range 10_000 {
		text := NewIDAt(at.Add(time.Duration(n) * 37 * time.Microsecond))
		id, err := uuid.Parse(text)
		if err != nil || id.String() != text || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Fatalf("id %q: version %d, variant %v, %v", text, id.Version(), id.Variant(), err)
		}
		sec, ns := id.Time().UnixTime()
		if got, want := time.Unix(sec, ns), at.Add(time.Duration(n)*37*time.Microsecond).Truncate(time.Millisecond); !got.Equal(want) {
			t.Fatalf("id %q is of %v, want %v", text, got, want)
		}
		if seen[text] {
			t.Fatalf("id %q comes twice", text)
		}
		seen[text] = true
	}
}

func TestIDsAscendWithTime(t *testing.T) {
	at := time.Unix(1_750_000_000, 0)
	for n := range 10_000 {
		// A tick is a 4,096th of a millisecond.
		if a, b := NewIDAt(at.Add(time.Duration(n)*time.Microsecond)), NewIDAt(at.Add(time.Duration(n+1)*time.Microsecond)); a >= b {
			t.Fatalf("%d us: %s is not before %s", n, a, b)
		}
	}
}
