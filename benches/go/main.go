// A Go service for the iris classifier, as an engineer would write it by hand: net/http, encoding/json
// and a logistic regression, version 1 of the model. It sends the same responses to the same requests
// as spinfer. With -lru it caches that number of responses in the process.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
)

const (
	model   = "iris-classifier"
	version = "1"
)

var (
	labels       = [3]string{"setosa", "versicolor", "virginica"}
	coefficients = [3][4]float32{
		{-0.514029979705811, 0.779017984867096, -2.38333988189697, -0.960325002670288},
		{0.300705999135971, -0.276419013738632, -0.159235000610352, -0.768607020378113},
		{0.213323995471001, -0.502599000930786, 2.54257488250732, 1.7289320230484},
	}
	intercepts = [3]float32{10.4375467300415, 2.92377209663391, -13.3613176345825}
)

// classify returns the class of the features and the probability of each class.
func classify(features []float32) (int, [3]float32) {
	logits, class := intercepts, 0
	for c := range logits {
		for f, feature := range features {
			logits[c] += coefficients[c][f] * feature
		}
		if logits[c] > logits[class] {
			class = c
		}
	}
	probabilities, sum := [3]float32{}, float32(0)
	for c, logit := range logits {
		probabilities[c] = float32(math.Exp(float64(logit - logits[class])))
		sum += probabilities[c]
	}
	for c := range probabilities {
		probabilities[c] /= sum
	}
	return class, probabilities
}

type predictRequest struct {
	Features []float32 `json:"features"`
}

type prediction struct {
	Model         string        `json:"model"`
	Version       string        `json:"version"`
	Prediction    string        `json:"prediction"`
	Probability   float32       `json:"probability"`
	Probabilities probabilities `json:"probabilities"`
}

type probabilities struct {
	Setosa     float32 `json:"setosa"`
	Versicolor float32 `json:"versicolor"`
	Virginica  float32 `json:"virginica"`
}

func predict(body []byte) (any, error) {
	var request predictRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	if len(request.Features) != 4 {
		return nil, errors.New("expected 4 features")
	}
	class, p := classify(request.Features)
	return prediction{model, version, labels[class], p[class], probabilities{p[0], p[1], p[2]}}, nil
}

type inferRequest struct {
	Inputs []inputTensor `json:"inputs"`
}

type inputTensor struct {
	Name     string    `json:"name"`
	Shape    []int     `json:"shape"`
	Datatype string    `json:"datatype"`
	Data     []float32 `json:"data"`
}

type inferResponse struct {
	ModelName    string `json:"model_name"`
	ModelVersion string `json:"model_version"`
	Outputs      [2]any `json:"outputs"`
}

type outputTensor[T any] struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	Data     []T    `json:"data"`
}

func infer(body []byte) (any, error) {
	var request inferRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	if len(request.Inputs) != 1 {
		return nil, errors.New("expected one input")
	}
	input := request.Inputs[0]
	if input.Name != "features" || input.Datatype != "FP32" {
		return nil, errors.New("expected the input features of FP32")
	}
	if len(input.Shape) != 2 || input.Shape[0] != 1 || input.Shape[1] != 4 || len(input.Data) != 4 {
		return nil, errors.New("expected the shape [1, 4]")
	}
	class, p := classify(input.Data)
	return inferResponse{model, version, [2]any{
		outputTensor[int]{"label", "INT64", []int{1}, []int{class}},
		outputTensor[float32]{"probabilities", "FP32", []int{1, 3}, p[:]},
	}}, nil
}

// handler serves one operation. Without a cache, every request is computed.
func handler(operation func([]byte) (any, error), cache *lru) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if cache != nil {
			if response, found := cache.get(string(body)); found {
				w.Write(response)
				return
			}
		}
		result, err := operation(body)
		if err != nil {
			fail(w, err)
			return
		}
		response, err := json.Marshal(result)
		if err != nil {
			fail(w, err)
			return
		}
		if cache != nil {
			cache.put(string(body), response)
		}
		w.Write(response)
	}
}

func fail(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	capacity := flag.Int("lru", 0, "maximum number of cached responses of each operation; 0: no cache")
	flag.Parse()
	cache := func() *lru {
		if *capacity == 0 {
			return nil
		}
		return newLRU(*capacity)
	}
	const base = "POST /v2/models/" + model
	mux := http.NewServeMux()
	mux.HandleFunc(base+"/predict", handler(predict, cache()))
	mux.HandleFunc(base+"/infer", handler(infer, cache()))
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Serving http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}
