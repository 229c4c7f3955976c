package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/pprof"
	"time"
)

// What a sensor takes of the CPU is told by a profile of the runtime's own, in
// which every goroutine bears the label of the sensor that started it. It runs
// when somebody asks, and costs nothing otherwise.

const (
	// costLabel is the label's key.
	costLabel = "sensor"
	// maxCostTime bounds one measurement.
	maxCostTime = time.Minute
	// maxProfile bounds what is read of a profile, unpacked: some 100 KB for a
	// busy minute.
	maxProfile = 16 << 20
)

// measureCost is the percent of a core that each part took over d. One
// measurement at a time: the runtime refuses a second.
func measureCost(ctx context.Context, d time.Duration) (map[string]float64, error) {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return nil, fmt.Errorf("another measurement is under way: %w", err)
	}
	began := time.Now()
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	took := time.Since(began)
	pprof.StopCPUProfile()
	z, err := gzip.NewReader(&b)
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(z, maxProfile))
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	spent, err := costs(raw)
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	parts := map[string]float64{}
	for name, t := range spent {
		parts[name] = 100 * float64(t) / float64(took)
	}
	return parts, nil
}

// errProfile is what a profile is that cannot be read.
var errProfile = errors.New("not a profile")

// costs adds the CPU time of a profile's samples by their label. A profile is a
// message of protocol buffers (google/pprof, proto/profile.proto): field 2 is
// samples, each with values (field 2: how many, nanoseconds) and labels (field 3:
// key and text, as numbers of strings), field 6 is the strings.
func costs(profile []byte) (map[string]time.Duration, error) {
	type label struct{ key, text uint64 } // numbers of strings
	type sample struct {
		nanoseconds uint64
		labels      []label
	}
	var texts []string
	var samples []sample
	err := eachField(profile, func(field, _ uint64, body []byte) error {
		switch field {
		case 6:
			texts = append(texts, string(body))
		case 2:
			var s sample
			var values []uint64
			err := eachField(body, func(field, number uint64, body []byte) error {
				switch {
				case field == 2 && body == nil:
					values = append(values, number)
				case field == 2:
					for len(body) > 0 {
						v, n := binary.Uvarint(body)
						if n <= 0 {
							return errProfile
						}
						values, body = append(values, v), body[n:]
					}
				case field == 3:
					var x label
					err := eachField(body, func(field, number uint64, _ []byte) error {
						switch field {
						case 1:
							x.key = number
						case 2:
							x.text = number
						}
						return nil
					})
					if err != nil {
						return err
					}
					s.labels = append(s.labels, x)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if len(values) != 2 {
				return errProfile
			}
			s.nanoseconds = values[1]
			samples = append(samples, s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	text := func(n uint64) string {
		if n >= uint64(len(texts)) {
			return ""
		}
		return texts[n]
	}
	spent := map[string]time.Duration{}
	for _, s := range samples {
		part := "other"
		for _, l := range s.labels {
			if text(l.key) == costLabel {
				part = text(l.text)
			}
		}
		spent[part] += time.Duration(s.nanoseconds)
	}
	return spent, nil
}

// eachField calls f with each field of a message: its number, and its value or its
// bytes.
func eachField(b []byte, f func(field, number uint64, body []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errProfile
		}
		b = b[n:]
		number, n := uint64(0), 0
		var body []byte
		switch tag & 7 {
		case 0:
			if number, n = binary.Uvarint(b); n <= 0 {
				return errProfile
			}
		case 1:
			n = 8
		case 5:
			n = 4
		case 2:
			size, m := binary.Uvarint(b)
			if m <= 0 || size > uint64(len(b)-m) {
				return errProfile
			}
			body = b[m : m+int(size) : m+int(size)]
			n = m + int(size)
		default:
			return errProfile
		}
		if n > len(b) {
			return errProfile
		}
		b = b[n:]
		if err := f(tag>>3, number, body); err != nil {
			return err
		}
	}
	return nil
}
